package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// requestTimeout bounds one request that is no stream, so that a store that
// does not answer at all ends as 503 and not as a hanging client.
const requestTimeout = 20 * time.Second

func (s *Server) bounded(c echo.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Request().Context(), requestTimeout)
}

// bodyOf reads the body, which guard has checked; one that may be absent and is gives the zero value.
func bodyOf[T any](c echo.Context) (T, error) {
	var v T
	err := json.NewDecoder(c.Request().Body).Decode(&v)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil {
		return v, fail(http.StatusBadRequest, codeMalformed, "", "the body cannot be read: %v", err)
	}
	return v, nil
}

// lasting reads a duration that the document's pattern has allowed.
func lasting(field string, text Duration) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fail(http.StatusBadRequest, codeInvalid, field, "%s: it is too long a time, or none", field)
	}
	return d, nil
}

// lastings reads several; the first that is broken is to blame.
func lastings(all ...duration) error {
	for _, d := range all {
		v, err := lasting(d.field, d.text)
		if err != nil {
			return err
		}
		*d.into = v
	}
	return nil
}

type duration struct {
	field string
	text  Duration
	into  *time.Duration
}

// plainJSON writes a client's JSON anew, because the store takes less than the
// syntax allows: halves of surrogate pairs become U+FFFD. Numbers stay as they were written.
func plainJSON(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fail(http.StatusBadRequest, codeMalformed, "", "the body cannot be read: %v", err)
	}
	return json.Marshal(v)
}

// rendererID lower-cases a renderer's name as commands do; the document has checked its form.
func rendererID(name RendererName) (domain.RendererID, error) {
	if name == "" {
		return "", nil
	}
	return domain.ParseRendererID(name)
}

func pageOf(limit Limit, cursor Cursor) projections.Page {
	return projections.Page{Limit: limit, Cursor: cursor}
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// seconds keeps what JSON cannot say out of answers.
func seconds(v float64) float64 {
	if math.IsNaN(v) || v < 0 {
		return 0
	}
	return min(v, math.MaxInt32)
}

func decisionRef(position int64) DecisionRef {
	if position <= 0 {
		return DecisionRef{}
	}
	return DecisionRef{Position: position, URL: BasePath + "/decisions/" + strconv.FormatInt(position, 10)}
}

func placeOf(p *pool.Place) QueuePlace {
	if p == nil {
		return QueuePlace{}
	}
	return QueuePlace{Position: p.Position, EstimatedWaitSeconds: seconds(p.EstimatedWaitSeconds),
		LowSeconds: seconds(p.LowSeconds), HighSeconds: seconds(p.HighSeconds), Code: p.Code, Reason: p.Reason}
}

// each makes the items of a list, never null in JSON.
func each[T, U any](in []T, f func(*T) U) []U {
	out := make([]U, len(in))
	for i := range in {
		out[i] = f(&in[i])
	}
	return out
}

func text[S ~string](s *S) string { return string(*s) }
