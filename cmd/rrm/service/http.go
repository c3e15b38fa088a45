package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi"
	"github.com/rendering-resource-manager/rrm/adapters/renderer"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/migrations"
)

// shutdownWait is how long requests under way may take when the service ends.
const shutdownWait = 5 * time.Second

// startHTTP opens the API. On an address that others can reach it refuses to
// be open to everyone: there must be a token first.
func (s *Service) startHTTP(ctx, run context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Listen, err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	loopback := net.ParseIP(host) != nil && net.ParseIP(host).IsLoopback()
	made, err := s.Tokens.Any(ctx)
	if err == nil && !loopback && !made {
		err = fmt.Errorf("%s can be reached from outside and no token was made: make one first with 'rrm token create --role operator --owner NAME', or listen on 127.0.0.1", s.cfg.Listen)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.Open = loopback && !made
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	s.URL = "http://" + net.JoinHostPort(host, port)
	addresses, err := s.addresses(l.Addr().String())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	api, err := httpapi.New(httpapi.Config{
		Commands: s.Handler, Views: s.Reader, Log: s.Log, Tokens: s.Tokens, Wake: s.Bus,
		Forward: newForwarder(), Outputs: outputs{s.launchers}, Ready: s.ready, Open: loopback,
		Heartbeats: s.Beats, HeartbeatEvery: s.cfg.HeartbeatEvery, CheckAddress: addresses.Check,
		Origins: s.cfg.CORSOrigins, Hosts: s.cfg.Hosts, Logger: s.cfg.Log,
		Collectors: []prometheus.Collector{laneCollector{s.Lane}},
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	both, v1, err := s.withV1(api, loopback)
	if err != nil {
		api.Close()
		return errors.Join(err, l.Close())
	}
	server := httpapi.HTTPServer(both, s.cfg.Log)
	s.goes("http", run, func(context.Context) error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	s.closers = append(s.closers, func() {
		api.Close()
		v1.Close()
		stop, cancel := context.WithTimeout(context.Background(), shutdownWait)
		defer cancel()
		if server.Shutdown(stop) != nil {
			_ = server.Close()
		}
	})
	return nil
}

// ready says whether the service can work: the store answers and is of the schema that this program wants.
func (s *Service) ready(ctx context.Context) error {
	have, want, err := migrations.Current(ctx, s.DB.DB)
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("the schema is at version %d, and this program wants %d: run 'rrm migrate'", have, want)
	}
	return nil
}

// forwarder passes sessions' requests on. The proxy is one for all of them;
// how a request fails is its own.
type forwarder struct{ proxy *renderer.Proxy }

type failKey struct{}

func newForwarder() forwarder {
	return forwarder{renderer.NewProxy(renderer.ProxyOptions{
		Fail: func(_ http.ResponseWriter, r *http.Request, status int, code, reason string) {
			if fail, ok := r.Context().Value(failKey{}).(func(int, string, string)); ok {
				fail(status, code, reason)
			}
		},
	})}
}

func (f forwarder) Forward(w http.ResponseWriter, r *http.Request, to httpapi.Target, onActivity func(), fail func(status int, code, reason string)) {
	r = r.WithContext(context.WithValue(r.Context(), failKey{}, fail))
	f.proxy.ServeHTTP(w, r, to.Address, to.Prefix, to.Session, to.Model, onActivity)
}

// outputs gives what renderers wrote, from whoever launched them.
type outputs struct{ launchers map[string]process.Launcher }

// lineBytes is how many bytes a line is taken to have at most, to read a tail of lines by a range of bytes.
const (
	lineBytes = 512
	maxOutput = 8 << 20
)

func (o outputs) Output(ctx context.Context, r pool.Resource, stream string, tail int) (io.ReadCloser, error) {
	l := o.launchers[r.Launcher]
	if l == nil {
		return nil, domain.NotFound("output", string(r.ID))
	}
	b, err := l.Output(ctx, domain.Launched{Resource: r.ID, Handle: r.Handle, Address: r.Address, Node: r.Node}, stream, min(maxOutput, int64(tail)*lineBytes))
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if n := len(lines); n > 0 && len(lines[n-1]) == 0 {
		lines = lines[:n-1]
	}
	return io.NopCloser(bytes.NewReader(bytes.Join(lines[max(0, len(lines)-tail):], nil))), nil
}

// laneCollector shows what the lane does at /metrics.
type laneCollector struct{ lane *commands.Lane }

func laneDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("rrm_lane_"+name, help, nil, nil)
}

var laneDescs = map[string]*prometheus.Desc{
	"commands":  laneDesc("commands_total", "Commands answered, refusals and failures too."),
	"batches":   laneDesc("batches_total", "Appends that were committed."),
	"repeated":  laneDesc("repeated_total", "Commands answered from a stored answer."),
	"conflicts": laneDesc("conflicts_total", "Appends that lost to another replica."),
	"locked":    laneDesc("locked_total", "Batches decided under the head's lock."),
	"fences":    laneDesc("fences_total", "Unknown outcomes settled by raising the epoch."),
	"failed":    laneDesc("failed_total", "Commands failed by a fault."),
	"queue":     laneDesc("queue", "Commands waiting now."),
	"available": laneDesc("store_available", "1 if the last batch reached the store."),
}

func (c laneCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range laneDescs {
		ch <- d
	}
}

func (c laneCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.lane.Stats()
	counter := func(name string, v int64) {
		ch <- prometheus.MustNewConstMetric(laneDescs[name], prometheus.CounterValue, float64(v))
	}
	counter("commands", s.Commands)
	counter("batches", s.Batches)
	counter("repeated", s.Repeated)
	counter("conflicts", s.Conflicts)
	counter("locked", s.Locked)
	counter("fences", s.Fences)
	counter("failed", s.Failed)
	available := 0.0
	if s.Available {
		available = 1
	}
	ch <- prometheus.MustNewConstMetric(laneDescs["queue"], prometheus.GaugeValue, float64(s.Queue))
	ch <- prometheus.MustNewConstMetric(laneDescs["available"], prometheus.GaugeValue, available)
}
