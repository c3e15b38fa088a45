package eventstore

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The log is the watermill topic: an event is written once and read where it
// is. This file is all that watermill-sql needs to know of it.

const topicName = "events"

// topic is the SchemaAdapter: one message is one run of consecutive events, so
// that one handler call, one transaction and one checkpoint serve them all.
type topic struct {
	run  int
	only []string // types of the events that travel; nil: all
}

func (topic) SchemaInitializingQueries(string) []wsql.Query { return nil } // the migrations do
func (topic) SubscribeIsolationLevel() sql.IsolationLevel   { return sql.LevelReadCommitted }

func (topic) InsertQuery(string, message.Messages) (wsql.Query, error) {
	return wsql.Query{}, errors.New("events are appended with Log.Append only")
}

// SelectQuery gives no row while there is nothing to do or another replica is
// at it. The head comes along, so that events missing at the end show too.
func (t topic) SelectQuery(name, follower string, offsets wsql.OffsetsAdapter) wsql.Query {
	next := offsets.NextOffsetQuery(name, follower)
	args, columns, events := next.Args, `*`, `run`
	if t.only != nil {
		args = append(slices.Clone(args), pq.StringArray(t.only))
		columns, events = `position`, fmt.Sprintf(`events WHERE position > (SELECT position FROM last)
  AND position <= (SELECT max(position) FROM run) AND type = ANY ($%d)`, len(args))
	}
	return wsql.Query{Args: args, Query: `
WITH last AS MATERIALIZED (` + next.Query + `),
run AS MATERIALIZED (SELECT ` + columns + ` FROM events WHERE position > (SELECT position FROM last) ORDER BY position LIMIT ` + strconv.Itoa(t.run) + `)
SELECT (SELECT position FROM last), (SELECT position FROM log_head), coalesce(max(position), 0), count(*),
  (SELECT coalesce(json_agg(json_build_object('p', position, 's', stream, 'v', version, 't', type, 'k', schema, 'd', data, 'm', meta, 'u', subjects, 'r', recorded_at) ORDER BY position), '[]') FROM ` + events + `)
FROM run HAVING count(*) > 0 OR (SELECT position FROM last) <> (SELECT position FROM log_head)`}
}

// Names of the message's metadata. The handler, not UnmarshalMessage, judges
// them, because it can pause the follower; an error here would only be retried.
const (
	metaFrom  = "from"  // position of the checkpoint
	metaTo    = "to"    // position of the last event
	metaHead  = "head"  // of the log
	metaCount = "count" // events of the run
	metaFull  = "full"  // as many as one run holds
	metaSome  = "some"  // the payload has only some of them
)

func (t topic) UnmarshalMessage(row wsql.Scanner) (wsql.Row, error) {
	var from, head, to, count int64
	var body []byte
	if err := row.Scan(&from, &head, &to, &count, &body); err != nil {
		return wsql.Row{}, fmt.Errorf("read a run of events: %w", err)
	}
	id := fmt.Sprintf("%d-%d", from, to)
	m := message.NewMessage(id, body)
	for name, v := range map[string]int64{metaFrom: from, metaTo: to, metaHead: head, metaCount: count} {
		m.Metadata[name] = strconv.FormatInt(v, 10)
	}
	m.Metadata[metaFull], m.Metadata[metaSome] = strconv.FormatBool(count >= int64(t.run)), strconv.FormatBool(t.only != nil)
	// The library takes offset 0 for "no message", so it must not be that even for a run that should not be empty.
	return wsql.Row{Offset: max(to, 1), UUID: []byte(id), Payload: body, Msg: m}, nil
}

// checkpoints is the OffsetsAdapter. A try-lock, not FOR UPDATE: an idle poll
// writes nothing, and a second replica goes on at once instead of waiting. The
// acknowledgement does nothing, because the handler's own transaction moves the checkpoint.
type checkpoints struct{ generation int }

func (checkpoints) SchemaInitializingQueries(string) []wsql.Query { return nil }

func (checkpoints) ConsumedMessageQuery(string, wsql.Row, string, []byte) wsql.Query {
	return wsql.Query{}
}

func (checkpoints) AckMessageQuery(string, wsql.Row, string) wsql.Query {
	return wsql.Query{Query: `SELECT 1`}
}

func (c checkpoints) NextOffsetQuery(_, follower string) wsql.Query {
	return wsql.Query{Args: []any{follower, c.generation}, Query: `SELECT position FROM checkpoints
WHERE follower = $1 AND generation = $2 AND status = 'running' AND pg_try_advisory_xact_lock(hashtextextended('follower:' || follower || ':' || generation, 0))`}
}

// BeforeSubscribingQueries looks before it inserts: ON CONFLICT alone waits for
// whoever is moving the checkpoint, so that a replica could not start while
// another applies a run.
func (c checkpoints) BeforeSubscribingQueries(_, follower string) []wsql.Query {
	return []wsql.Query{{Args: []any{follower, c.generation}, Query: `INSERT INTO checkpoints (follower, generation)
SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM checkpoints WHERE follower = $1 AND generation = $2) ON CONFLICT DO NOTHING`}}
}

// run is a message, decoded.
type run struct {
	from, to int64
	events   []Event
}

// decodeRun gives the run with the events that travelled, or a *HoleError if the log misses an event of it.
func decodeRun(m *message.Message) (run, error) {
	var n [4]int64
	for i, name := range []string{metaFrom, metaTo, metaHead, metaCount} {
		v, err := strconv.ParseInt(m.Metadata[name], 10, 64)
		if err != nil {
			return run{}, fmt.Errorf("read a run's %s: %w", name, err)
		}
		n[i] = v
	}
	r := run{from: n[0], to: n[1]}
	head, count := n[2], n[3]
	if head < r.from {
		return r, fmt.Errorf("the checkpoint %d is after the head %d of the log, which lost its end: rebuild this follower", r.from, head)
	}
	var wire []struct {
		P int64           `json:"p"`
		S domain.Stream   `json:"s"`
		V int64           `json:"v"`
		T string          `json:"t"`
		K int             `json:"k"`
		D json.RawMessage `json:"d"`
		M Meta            `json:"m"`
		U []string        `json:"u"`
		R time.Time       `json:"r"`
	}
	if err := json.Unmarshal(m.Payload, &wire); err != nil {
		return r, fmt.Errorf("read the events after %d: %w", r.from, err)
	}
	last, some := r.from, m.Metadata[metaSome] == "true"
	for _, w := range wire {
		if w.P != last+1 && !some {
			return r, &HoleError{After: last, Next: w.P}
		}
		last = w.P
		e := NewEvent{Stream: w.S, Version: w.V, Type: w.T, Schema: w.K, Data: w.D, Meta: w.M, Subjects: w.U}
		r.events = append(r.events, Event{Position: w.P, NewEvent: e, RecordedAt: w.R.UTC()})
	}
	if some { // they are as many as their positions say, or one is missing somewhere
		if last = max(r.to, r.from); last-r.from != count {
			return r, &HoleError{After: r.from, Next: last + 1}
		}
	} else if int64(len(wire)) != count {
		return r, &HoleError{After: last, Next: head + 1}
	}
	if m.Metadata[metaFull] != "true" && last < head {
		return r, &HoleError{After: last, Next: head + 1}
	}
	return r, nil
}

// quiet is the library's logger. Its routine, at level info, is debug to us, and
// so is what fails because the followers are being stopped: the library calls
// each transaction that ends with its context an error.
type quiet struct {
	watermill.LoggerAdapter
	stop <-chan struct{} // closed when the followers are to stop
}

func newQuiet(logger *slog.Logger, stop <-chan struct{}) quiet {
	levels := map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug}
	return quiet{watermill.NewSlogLoggerWithLevelMapping(logger, levels), stop}
}

func (q quiet) Error(msg string, err error, fields watermill.LogFields) {
	select {
	case <-q.stop:
		q.Debug(msg, fields.Add(watermill.LogFields{"error": err}))
	default:
		q.LoggerAdapter.Error(msg, err, fields)
	}
}

func (q quiet) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return quiet{q.LoggerAdapter.With(fields), q.stop}
}

// waker is the BackoffManager, the one place where watermill-sql can be made
// to wait for a wake-up: it blocks here, and polls when nothing wakes it.
type waker struct {
	wake     <-chan struct{}
	stop     <-chan struct{}
	logger   *slog.Logger
	failures int // in a row; the subscriber calls from one goroutine
}

const (
	followPoll    = time.Second
	followEvery   = 50 * time.Millisecond // between two runs: each is a commit of its own, beside those of the commands
	followBackoff = 2 * time.Second       // at most, after errors
)

func (w *waker) HandleError(_ watermill.LoggerAdapter, noMsg bool, err error) time.Duration {
	if err == nil && !noMsg {
		w.failures = 0
		return followEvery
	}
	wake, pause := w.wake, followPoll
	if err != nil {
		select {
		case <-w.stop:
			return 0
		default:
		}
		w.logger.Warn("a follower cannot read the log", "error", err)
		wake, pause = nil, min(20*time.Millisecond<<min(w.failures, 10), followBackoff)
		w.failures++
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	case <-w.stop:
	}
	return 0
}

var (
	_ wsql.SchemaAdapter  = topic{}
	_ wsql.OffsetsAdapter = checkpoints{}
	_ wsql.BackoffManager = (*waker)(nil)
)
