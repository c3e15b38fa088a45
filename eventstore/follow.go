package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jmoiron/sqlx"
)

// Follower reads the whole log in order, from the start of its generation, and
// remembers how far it is. Each event is applied exactly once, whatever is
// killed and however many replicas run the same follower.
type Follower struct {
	Name       string // of the checkpoint; the same in all replicas
	Generation int    // a higher one starts again from the first event; 0 is 1
	Run        int    // events in one transaction at most; 0 is 500
	Timeout    time.Duration

	// Apply writes what follows from a run of events, in tx, which also moves
	// the checkpoint. It must do nothing outside of tx, because it may be
	// called again for the same run. An error that is not a fault of the
	// connection, and a panic, pause the follower: it never skips an event.
	Apply func(ctx context.Context, tx *sql.Tx, run []Event) error

	// Only, if it is not nil, names the types of the events that Apply is given; the others count as applied.
	Only []string

	// Index, instead of Apply, is for a follower that works on the table of
	// events itself: it is given the positions of a run, both included, and no event travels.
	Index func(ctx context.Context, tx *sql.Tx, first, last int64) error

	// OnPause, if set, is the alarm.
	OnPause func(reason string)
}

// Checkpoint is how far a follower is.
type Checkpoint struct {
	Follower   string    `db:"follower"`
	Generation int       `db:"generation"`
	Position   int64     `db:"position"`
	Status     string    `db:"status"` // running, paused, retired
	Reason     string    `db:"reason"` // why it is paused
	UpdatedAt  time.Time `db:"updated_at"`
}

// Checkpoints lists all followers.
func Checkpoints(ctx context.Context, db *sqlx.DB) ([]Checkpoint, error) {
	var out []Checkpoint
	err := db.SelectContext(ctx, &out, `SELECT follower, generation, position, status, reason, updated_at FROM checkpoints ORDER BY follower, generation`)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	return out, nil
}

// Resume lets a paused follower try again where it stopped.
func Resume(ctx context.Context, db *sqlx.DB, name string, generation int) error {
	_, err := db.ExecContext(ctx, `UPDATE checkpoints SET status = 'running', reason = '', updated_at = clock_timestamp()
		WHERE follower = $1 AND generation = $2 AND status = 'paused'`, name, generation)
	if err != nil {
		return fmt.Errorf("resume follower %s: %w", name, err)
	}
	return nil
}

const (
	runSize        = 500
	applyTimeout   = time.Minute
	applyTries     = 6 // then the run is given back to watermill, which sends it again
	resendInterval = 200 * time.Millisecond
	closeTimeout   = 10 * time.Second
	// ackDeadline must outlast all tries of a run: when it passes, the library
	// hands the run out again, which is harmless but in vain.
	ackDeadline  = time.Hour
	restartPause = time.Second
)

// Follow runs the followers in a watermill router until ctx ends, and then
// returns nil with everything stopped. It outlives the database's absence.
func Follow(ctx context.Context, db *sqlx.DB, bus *Bus, logger *slog.Logger, followers ...Follower) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	for {
		err := followOnce(ctx, db, bus, logger, followers)
		if ctx.Err() != nil {
			return nil
		}
		logger.Error("the followers stopped, starting them again", "error", err)
		if !sleep(ctx, restartPause) {
			return nil
		}
	}
}

func followOnce(ctx context.Context, db *sqlx.DB, bus *Bus, logger *slog.Logger, followers []Follower) error {
	// Stopped by cancelling, never by closing subscribers: Close would commit half of what the library has open.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	library := newQuiet(logger, ctx.Done())
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, library)
	if err != nil {
		return fmt.Errorf("make a router for the followers: %w", err)
	}
	deadline := ackDeadline
	for _, f := range followers {
		f.Generation = max(f.Generation, 1)
		if f.Run <= 0 {
			f.Run = runSize
		}
		if f.Timeout <= 0 {
			f.Timeout = applyTimeout
		}
		if f.Index != nil {
			f.Only = []string{}
		}
		log := logger.With("follower", f.Name, "generation", f.Generation)
		wake, end := bus.Subscribe()
		defer end()
		sub, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
			ConsumerGroup: f.Name, SchemaAdapter: topic{run: f.Run, only: f.Only}, OffsetsAdapter: checkpoints{generation: f.Generation},
			BackoffManager: &waker{wake: wake, stop: ctx.Done(), logger: log},
			AckDeadline:    &deadline, ResendInterval: resendInterval,
		}, library)
		if err != nil {
			return fmt.Errorf("subscribe follower %s: %w", f.Name, err)
		}
		h := handler{db: db, Follower: f, logger: log}
		router.AddConsumerHandler(fmt.Sprintf("%s.%d", f.Name, f.Generation), topicName, sub, h.handle)
	}
	if err := router.Run(ctx); err != nil {
		return fmt.Errorf("run the followers: %w", err)
	}
	return nil
}

// handler applies runs in its own transactions. The library's transaction
// only reads and holds the follower's advisory lock: a nack does not roll it
// back and a close may commit it, so nothing may be written in it.
type handler struct {
	Follower
	db     *sqlx.DB
	logger *slog.Logger
}

// handle returns nil when the run is applied, was applied before, or the
// follower is paused; an error gives the run back to be sent again.
func (h handler) handle(m *message.Message) error {
	ctx := m.Context()
	r, err := decodeRun(m)
	for try := 1; err == nil; try++ {
		if err = h.apply(ctx, r); err == nil {
			return nil
		}
		if ctx.Err() != nil || try == applyTries && Transient(err) {
			return err
		}
		if !Transient(err) {
			break
		}
		h.logger.Warn("applying events failed, trying again", "from", r.from, "to", r.to, "error", err)
		if !sleep(ctx, 10*time.Millisecond<<try) {
			return err
		}
		err = nil
	}
	return h.pause(ctx, r, err)
}

func (h handler) apply(ctx context.Context, r run) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin to apply events: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	// First of all the checkpoint, compared and set: who does not move it has nothing to do. The commit is not waited for,
	// so that it costs the commands' commits nothing: a crash of the server takes the checkpoint back with what it stands for.
	result, err := tx.ExecContext(ctx, `WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
		UPDATE checkpoints SET position = $4, updated_at = clock_timestamp() FROM soon
		WHERE follower = $1 AND generation = $2 AND position = $3 AND status = 'running'`, h.Name, h.Generation, r.from, r.to)
	if err != nil {
		return fmt.Errorf("move the checkpoint: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if err := h.call(ctx, tx, r); err != nil {
		return fmt.Errorf("apply events %d to %d: %w", r.from+1, r.to, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit events %d to %d: %w", r.from+1, r.to, err)
	}
	return nil
}

// call turns a panic into an error.
func (h handler) call(ctx context.Context, tx *sql.Tx, r run) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	switch {
	case h.Index != nil:
		return h.Index(ctx, tx, r.from+1, r.to)
	case len(r.events) > 0:
		return h.Apply(ctx, tx, r.events)
	}
	return nil
}

// pause stops the follower before the run that it cannot apply, with the
// reason on record, until someone resumes it.
func (h handler) pause(ctx context.Context, r run, cause error) error {
	const longest = 2000 // characters of a reason, which may hold a stack
	reason := []rune(cause.Error())
	reason = reason[:min(len(reason), longest)]
	_, err := h.db.ExecContext(ctx, `UPDATE checkpoints SET status = 'paused', reason = $4, updated_at = clock_timestamp()
		WHERE follower = $1 AND generation = $2 AND position = $3 AND status = 'running'`, h.Name, h.Generation, r.from, string(reason))
	if err != nil {
		return errors.Join(cause, fmt.Errorf("pause the follower: %w", err))
	}
	h.logger.Error("the follower is paused: it cannot apply an event, and none may be skipped", "after", r.from, "to", r.to, "error", cause)
	if h.OnPause != nil {
		h.OnPause(string(reason))
	}
	return nil
}
