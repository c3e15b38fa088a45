// Package commands gives commands to the log: the lane decides many of them at
// once on the live state in memory and appends what came of it in one commit.
package commands

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Model is the live state in memory that a lane decides on. The lane alone
// calls it, from one goroutine at a time.
type Model interface {
	// Reset forgets everything.
	Reset()
	// Load puts rows as they are in the log: all of them for a starting
	// process, what other replicas changed, or rows that were missing. Loaded
	// rows stay at least until the next Commit or Rollback.
	Load(rows []eventstore.Row) error
	// Missing names rows that deciding cmd needs and that are not in memory,
	// such as a session that has ended. A row that does not exist either is
	// named each time; Decide must then take it as not existing.
	Missing(cmd any) []eventstore.Ref
	// Decide decides cmd and applies its events to the model. The first event
	// gets position head+1. A *domain.Refusal may come with events: a refusal
	// that is on record. After any other error nothing may be changed. It must
	// be pure: the same state and command give the same events.
	Decide(head int64, cmd any, meta eventstore.Meta) (Decided, error)
	// Changed gives the rows changed since the last Mark or Rollback, each once, as they are now.
	Changed() []eventstore.Row
	// Mark says that what was changed until now is being appended; the next
	// commands may be decided before that is done, but no second Mark comes before the Commit.
	Mark()
	// Commit keeps what was changed before the last Mark. Rollback undoes all
	// since the last Commit, marked or not. Load is not undone.
	Commit()
	Rollback()
}

// Decided is what came of one command.
type Decided struct {
	Events []eventstore.NewEvent // with stream and version
	Answer json.RawMessage
}

// Request is a command as given to the lane.
type Request struct {
	Command   any
	ID        domain.CommandID // the same ID gets the same answer; needed unless Transient
	Hash      string           // of the request: the same ID with another hash is a conflict
	Meta      eventstore.Meta
	Transient bool // no answer is stored: for commands of the service itself, which may be repeated freely
}

// Answer is what a command was answered. Position is the head when it was
// decided, its own events included: whoever reads at that position sees them.
type Answer struct {
	Body     json.RawMessage
	Position int64
	Repeated bool // the command had been answered before
}

// Options of a lane; zero values mean the defaults.
type Options struct {
	MaxBatch int           // commands in one append: 512
	Queue    int           // commands that may wait: 4096; one more is refused as busy
	Timeout  time.Duration // for one batch, with all its retries, until its commands are told that the store is unavailable: 3 s
	Drain    time.Duration // for what is queued when Run is stopped: 5 s
	Recent   int           // answers kept in memory: 8192
	Logger   *slog.Logger
	OnCommit func(position int64) // called on the lane's goroutine after each commit: must not block
}

// Stats count what a lane did since it was made.
type Stats struct {
	Batches   int64 // appends that were committed
	Commands  int64 // commands answered, refusals and failures too
	Repeated  int64 // of them, from a stored answer
	Conflicts int64 // appends that lost to another replica
	Locked    int64 // batches decided under the head's lock
	Fences    int64 // unknown outcomes that were settled by raising the epoch
	Failed    int64 // commands failed by a fault: a panic, data that cannot be stored, the store gone
	Queue     int   // commands waiting now
	Available bool  // the last batch reached the store
}

type counters struct {
	batches, commands, repeated, conflicts, locked, fences, failed atomic.Int64
	down                                                           atomic.Bool
}

// Lane decides commands one batch after another: whatever arrives while the
// last batch is under way, without a timer. One lane per process and database
// is enough; several processes may each have one.
type Lane struct {
	log   *eventstore.Log
	model Model
	opts  Options

	in       chan *item
	stopping chan struct{} // closed: new commands are refused
	done     chan struct{} // closed: nothing will be decided any more
	stats    counters

	// Below: only for the goroutine of Run.
	recent *recent
	head   int64
	epoch  int64
	loaded bool // the model holds the state as of head and epoch
	fence  bool // an append's outcome is unknown, and the epoch not yet raised
	locks  int  // batches still to be decided under the lock
}

// item is one command on its way through the lane.
type item struct {
	Request
	ctx   context.Context //nolint:containedctx // of the client that waits: who is gone by its turn is not served
	out   chan outcome    // of capacity 1
	twins []*item         // the same ID and hash in the same batch
}

type outcome struct {
	answer Answer
	err    error
}

// NewLane makes a lane; it answers once Run runs.
func NewLane(log *eventstore.Log, model Model, opts Options) *Lane {
	defaults(&opts.MaxBatch, 512)
	defaults(&opts.Queue, 4096)
	defaults(&opts.Timeout, 3*time.Second)
	defaults(&opts.Drain, 5*time.Second)
	defaults(&opts.Recent, 8192)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Lane{
		log: log, model: model, opts: opts,
		in: make(chan *item, opts.Queue), stopping: make(chan struct{}), done: make(chan struct{}),
		recent: newRecent(opts.Recent),
	}
}

func defaults[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Do gives a command and waits for its answer. A refusal is a *domain.Refusal
// with the answer's position; "busy", "store_unavailable" and "shutting_down"
// say nothing about the command: repeat it with the same ID. When ctx ends
// first its error is returned, and the command may still be carried out.
func (l *Lane) Do(ctx context.Context, r Request) (Answer, error) {
	if r.ID == "" && !r.Transient {
		return Answer{}, domain.Invalid("id", "a command whose answer is kept needs an id")
	}
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	select {
	case <-l.stopping:
		return Answer{}, stopped()
	default:
	}
	it := &item{Request: r, ctx: ctx, out: make(chan outcome, 1)}
	select {
	case l.in <- it:
	default:
		return Answer{}, domain.Unavailable("busy", time.Second, "%d commands are waiting already", l.opts.Queue)
	}
	select {
	case o := <-it.out:
		return o.answer, o.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-l.done:
	}
	select { // it may have been answered last of all
	case o := <-it.out:
		return o.answer, o.err
	default:
		return Answer{}, stopped()
	}
}

func stopped() error {
	return domain.Unavailable("shutting_down", 2*time.Second, "this process is stopping")
}

// Stats gives the counters as they are now.
func (l *Lane) Stats() Stats {
	c := &l.stats
	return Stats{
		Batches: c.batches.Load(), Commands: c.commands.Load(), Repeated: c.repeated.Load(), Conflicts: c.conflicts.Load(),
		Locked: c.locked.Load(), Fences: c.fences.Load(), Failed: c.failed.Load(), Queue: len(l.in), Available: !c.down.Load(),
	}
}

// Run decides commands until ctx ends, then what is still queued, for at most
// Options.Drain. It may be called once. The store need not be there when it starts.
func (l *Lane) Run(ctx context.Context) error {
	defer close(l.done)
	l.preload(ctx)
	for {
		select {
		case <-ctx.Done():
			l.drain()
			return nil
		case it := <-l.in:
			if l.calm() {
				l.stream(ctx.Done(), it)
			} else {
				l.serve(context.Background(), l.fill(it))
			}
		}
	}
}

// preload reads the live rows before the first command asks for them, if the store is there.
func (l *Lane) preload(ctx context.Context) {
	if err := l.ready(ctx); err != nil {
		l.opts.Logger.Warn("the live rows are not loaded yet", "error", err)
	}
}
