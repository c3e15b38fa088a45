package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/projections"
)

func eventAnswer(e *eventstore.Event) Event {
	return Event{
		Position: e.Position, Type: e.Type, Stream: string(e.Stream), Version: e.Version, Subjects: nonNil(e.Subjects),
		RecordedAt: e.RecordedAt.UTC(), Actor: string(e.Meta.Actor), Data: e.Data,
	}
}

// watch chooses events: about a subject, of a type, for a caller.
type watch struct {
	who     caller
	subject string // empty: all
	kind    string // "session.ready", "session.*", or empty: all
}

func (w watch) wants(e *eventstore.Event) bool {
	if w.subject != "" && !slices.Contains(e.Subjects, w.subject) || !w.who.seesSubjects(e.Subjects) {
		return false
	}
	if noun, all := strings.CutSuffix(w.kind, "*"); all {
		return strings.HasPrefix(e.Type, noun)
	}
	return w.kind == "" || e.Type == w.kind
}

// read gives wanted events after a position and how far was looked; done: up to the end of the log.
func (w watch) read(ctx context.Context, views Views, after int64, limit int) (wanted []eventstore.Event, upTo int64, done bool, err error) {
	f := projections.EventFilter{After: after, Subject: w.subject, Type: w.kind, Limit: limit}
	if f.Subject == "" && w.who.role == projections.RoleClient {
		f.Subject = "owner:" + string(w.who.owner) // on all that a client may see
	}
	found, err := views.Events(ctx, f)
	if err != nil {
		return nil, after, false, err
	}
	for i := range found {
		upTo = found[i].Position
		if w.wants(&found[i]) {
			wanted = append(wanted, found[i])
		}
	}
	return wanted, max(after, upTo), len(found) == 0, nil
}

// ListEvents answers GET /events.
func (s *Server) ListEvents(c echo.Context, p ListEventsParams) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	limit := p.Limit
	if limit == 0 {
		limit = projections.DefaultLimit
	}
	w := watch{who: callerOf(c), subject: p.Subject, kind: p.Type}
	wanted, upTo, _, err := w.read(ctx, s.Views, p.After, limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, EventList{Items: each(wanted, eventAnswer), NextAfter: upTo})
}

// StreamEvents answers GET /events/stream.
func (s *Server) StreamEvents(c echo.Context, p StreamEventsParams) error {
	return s.stream(c, &follow{
		watch: watch{who: callerOf(c), subject: p.Subject, kind: p.Type}, after: position(p.LastEventID, p.After),
	})
}

// position is where a stream goes on; nil: where it begins by itself.
func position(last *LastEventID, after *After) *int64 {
	if last != nil {
		return last
	}
	return after
}

// Types of the last event of a session and of a job.
var (
	sessionEnds = []string{pool.SessionReleased{}.Type(), pool.SessionExpired{}.Type(), pool.SessionLost{}.Type(), pool.SessionFailed{}.Type()}
	jobEnds     = []string{pool.JobSucceeded{}.Type(), pool.JobFailed{}.Type(), pool.JobCancelled{}.Type()}
)

// StreamSessionEvents answers GET /sessions/{id}/events.
func (s *Server) StreamSessionEvents(c echo.Context, id SessionID, p StreamSessionEventsParams) error {
	who := callerOf(c)
	ctx, cancel := s.bounded(c)
	v, err := s.ownSession(ctx, who, id)
	cancel()
	if err != nil {
		return err
	}
	return s.stream(c, &follow{
		watch: watch{who: who, subject: "session:" + id}, begin: v.Seq - 1, after: position(p.LastEventID, p.After),
		ends: sessionEnds, ended: v.Ended,
		progress: func(ctx context.Context) (Progress, bool, error) {
			v, err := s.Views.Session(ctx, v.ID)
			changing := v.Waiting() || v.State == pool.SessionStateLoading
			return Progress{State: string(v.State), Progress: min(seconds(v.Progress), 1), Queue: placeOf(v.Queue)}, changing, err
		},
	})
}

// StreamJobEvents answers GET /jobs/{id}/events.
func (s *Server) StreamJobEvents(c echo.Context, id JobID, p StreamJobEventsParams) error {
	who := callerOf(c)
	ctx, cancel := s.bounded(c)
	v, err := s.ownJob(ctx, who, id)
	cancel()
	if err != nil {
		return err
	}
	return s.stream(c, &follow{
		watch: watch{who: who, subject: "job:" + id}, begin: v.Seq - 1, after: position(p.LastEventID, p.After),
		ends: jobEnds, ended: v.Ended,
		progress: func(ctx context.Context) (Progress, bool, error) {
			v, err := s.Views.Job(ctx, v.ID)
			changing := v.State == pool.JobStateQueued || v.State == pool.JobStateRunning
			return Progress{State: string(v.State), Progress: min(seconds(v.Progress), 1), Queue: placeOf(v.Queue)}, changing, err
		},
	})
}
