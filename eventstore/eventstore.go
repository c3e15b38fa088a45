// Package eventstore is the log: append, read, follow. It knows the tables of
// migrations/00001_log.sql and the words of package domain, and nothing of
// what the events mean.
//
// Positions are gapless and in the order of commits, because they are given
// out under the lock of one row. So a reader needs only "position > mine", and
// a hole is damage, which every read path here reports instead of skipping.
package eventstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
)

// NewEvent is an event to append. Stream and Version are the decider's: versions of a stream count from 1 without gaps.
type NewEvent struct {
	Stream   domain.Stream
	Version  int64
	Type     string          // noun.verb, in the past
	Schema   int             // of Data; 0 is written as 1
	Data     json.RawMessage // must not hold \u0000, which jsonb refuses
	Meta     Meta
	Subjects []string // whom it concerns, such as "session:…"; a follower keeps an index of them
}

// Event is an event as recorded.
type Event struct {
	Position int64
	NewEvent
	RecordedAt time.Time // the server's clock; the same for all events of one append
}

// Meta says who caused an event, and when it was decided.
type Meta struct {
	Command     domain.CommandID `json:"command,omitempty"`
	Correlation string           `json:"correlation,omitempty"`
	Causation   string           `json:"causation,omitempty"`
	Trace       string           `json:"trace,omitempty"` // W3C traceparent
	Actor       domain.Actor     `json:"actor,omitempty"`
	DecidedAt   time.Time        `json:"decided_at"` // the time that the decision used
}

// Row is one row of a live view: service, pools, resources, models, owners, sessions or jobs.
type Row struct {
	View, ID string
	Body     json.RawMessage
	Position int64 // of the append that wrote it
}

// Ref names a row of a live view.
type Ref struct{ View, ID string }

// Answer is what a command was answered, kept so that a repetition gets the same.
type Answer struct {
	Command  domain.CommandID
	Hash     string          // of the request, so that another request under the same ID is noticed
	Body     json.RawMessage // given back byte for byte
	Position int64           // of the head when it was decided, its own events included
}

// Batch is all that one append writes, or does not write.
type Batch struct {
	Expected, Epoch int64 // the head that it was decided on
	Events          []NewEvent
	Answers         []Answer
	Rows            []Row // each with the state after all Events; not more than one for a Ref; none without Events
}

// Delta is the head and the rows that changed up to it, of one instant.
type Delta struct {
	Position, Epoch int64
	Rows            []Row
	Forgotten       bool // it is not known any more what changed: no Rows, no Epoch, only Live helps
}

// ErrMoved says that the head was not where the batch expected it, or that the
// epoch was raised: nothing was written. Refresh and decide again.
var ErrMoved = errors.New("the head of the log moved")

// HoleError says that the log or a stream misses an event that must be there:
// damage, such as a restore that left something out.
type HoleError struct {
	Stream domain.Stream // empty: the log itself
	After  int64         // position or version of the last event before the hole
	Next   int64         // of the first after it, or of the head if there is none
}

func (e *HoleError) Error() string {
	if e.Stream != "" {
		return fmt.Sprintf("stream %s has a hole between version %d and %d", e.Stream, e.After, e.Next)
	}
	return fmt.Sprintf("the log has a hole between position %d and %d", e.After, e.Next)
}

// Log is the event log in one database. Its methods may be called from many
// goroutines. Each returns soon after its context ends even if the server does
// not answer at all.
type Log struct {
	db *sqlx.DB

	appendCall, sinceCall, lockCall, answersCall, headCall *sql.Stmt
}

// Open prepares the calls of the log. The database must be migrated.
func Open(ctx context.Context, db *sqlx.DB) (*Log, error) {
	l := &Log{db: db}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&l.appendCall, appendSQL},
		{&l.sinceCall, `SELECT view, id, body, position FROM rrm_since($1)`},
		{&l.lockCall, `SELECT view, id, body, position FROM rrm_lock_since($1)`},
		{&l.answersCall, `SELECT command_id, hash, answer, position FROM answers WHERE command_id = ANY ($1)`},
		{&l.headCall, `SELECT position, epoch FROM log_head`},
	} {
		stmt, err := db.PrepareContext(ctx, p.text) //nolint:sqlclosecheck // by Close
		if err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("prepare the calls of the log: %w", err)
		}
		*p.stmt = stmt
	}
	return l, nil
}

// Close gives the prepared calls back; the database stays open.
func (l *Log) Close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{l.appendCall, l.sinceCall, l.lockCall, l.answersCall, l.headCall} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// Head gives the last position and the epoch.
func (l *Log) Head(ctx context.Context) (position, epoch int64, err error) {
	d, err := within(ctx, func() (d Delta, err error) {
		err = l.headCall.QueryRowContext(ctx).Scan(&d.Position, &d.Epoch)
		return d, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read the head of the log: %w", err)
	}
	return d.Position, d.Epoch, nil
}

// Fence raises the epoch. Once it has returned, no call that carries an older
// epoch can ever append, also not one that is still on its way. So what
// Answers says next about such a call is final.
func (l *Log) Fence(ctx context.Context) (int64, error) {
	epoch, err := within(ctx, func() (epoch int64, err error) {
		err = l.db.QueryRowContext(ctx, `UPDATE log_head SET epoch = epoch + 1 RETURNING epoch`).Scan(&epoch)
		return epoch, err
	})
	if err != nil {
		return 0, fmt.Errorf("raise the epoch of the log: %w", err)
	}
	return epoch, nil
}

// within runs f and gives up when ctx ends, though f may not have returned:
// lib/pq waits for a server that is frozen or unreachable far longer than the
// context says. f gets the same context, so it ends, if late.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	select { // what is ready wins over the end of the context
	case r := <-done:
		return r.v, r.err
	default:
		var none T
		return none, ctx.Err()
	}
}
