package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the service's own, in a registry of its own, so that two servers
// in one process do not meet.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	serve    http.Handler
}

func newMetrics(more []prometheus.Collector, streams *atomic.Int64) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rrm_http_requests_total", Help: "Requests that were answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rrm_http_request_seconds", Help: "Time from a request's headers to the end of its answer; streams take long by nature.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route", "method"}),
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rrm_http_event_streams", Help: "Event streams that are open."},
		func() float64 { return float64(streams.Load()) })
	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{m.requests, m.seconds, open, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	for _, c := range append(own, more...) {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	m.serve = promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return m, nil
}

// observe counts one answer. Methods that HTTP does not know count as one, because clients may invent them.
func (m *metrics) observe(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route, method).Observe(took.Seconds())
}

func (m *metrics) handler(c echo.Context) error {
	m.serve.ServeHTTP(c.Response(), c.Request())
	return nil
}
