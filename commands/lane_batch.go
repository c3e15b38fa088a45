package commands

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

const (
	conflictsBeforeLock = 2                      // in a row, then the head is locked first
	batchesUnderLock    = 8                      // after that, before trying without again
	probeTimeout        = 500 * time.Millisecond // is the store back?
	loadTimeout         = 10 * time.Second       // all live rows, from a store that answers
	maxBackoff          = 250 * time.Millisecond
)

// errAnew: all that is in memory may be wrong. The log lost its end (a restore, a failover), what changed since is
// forgotten, or someone raised the epoch: after a rebuild of the live views, rows may differ that no event has touched.
var errAnew = errors.New("the live state must be read anew")

// appendError marks an error of the append itself, after which it matters whether it was committed.
type appendError struct{ error }

func (e appendError) Unwrap() error { return e.error }

// fill takes what waits, behind first, up to a full batch. It lets the clients
// that the last batch answered run once, so that their next commands are in this batch: no timer.
func (l *Lane) fill(first *item) []*item {
	batch := []*item{first}
	for yielded := false; len(batch) < l.opts.MaxBatch; {
		select {
		case it := <-l.in:
			batch = append(batch, it)
			continue
		default:
		}
		if yielded {
			break
		}
		yielded = true
		runtime.Gosched()
	}
	return batch
}

// drain answers what is queued when the lane is stopped.
func (l *Lane) drain() {
	close(l.stopping)
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.Drain)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case it := <-l.in:
			l.serve(ctx, l.fill(it))
		default:
			return
		}
	}
}

// serve answers every command of the batch, within Options.Timeout if the store answers at all.
func (l *Lane) serve(parent context.Context, batch []*item) {
	ctx, cancel := context.WithTimeout(parent, l.opts.Timeout)
	defer cancel()
	open := l.admit(batch)
	if len(open) > 0 {
		l.settleOpen(ctx, open)
	}
}

// settleOpen settles commands, or tells them at once that the store is still gone.
func (l *Lane) settleOpen(ctx context.Context, open []*item) {
	if l.stats.down.Load() && !l.probe(ctx) {
		l.unavailable(open, errors.New("the store is still gone"))
		return
	}
	l.settle(ctx, open, nil)
}

// probe asks shortly whether the store is back, so that commands do not wait
// the full time while it is gone.
func (l *Lane) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, _, err := l.log.Head(ctx)
	return err == nil
}

// admit answers what needs no decision and gives the rest.
func (l *Lane) admit(batch []*item) []*item {
	open := batch[:0:0]
	first := make(map[domain.CommandID]*item, len(batch))
	for _, it := range batch {
		if l.admitOne(it, first) {
			open = append(open, it)
		}
	}
	return open
}

// admitOne answers a command that needs no decision: a repetition of a recent
// one, or of one that is under way, which are in first; a client that is gone.
func (l *Lane) admitOne(it *item, first map[domain.CommandID]*item) bool {
	if it.ctx.Err() != nil { // nothing was begun, so nothing is carried out
		l.reply(it, outcome{err: it.ctx.Err()})
		return false
	}
	if it.Transient {
		return true
	}
	if s, ok := l.recent.get(it.ID); ok {
		l.repeat(it, s)
		return false
	}
	if twin := first[it.ID]; twin != nil {
		if twin.Hash == it.Hash {
			twin.twins = append(twin.twins, it)
		} else {
			l.reply(it, outcome{err: reused(it.ID)})
		}
		return false
	}
	first[it.ID] = it
	return true
}

// settle decides and appends until every open command has its outcome. err is
// what came of a first attempt, if there was one.
func (l *Lane) settle(ctx context.Context, open []*item, err error) {
	t := &turn{open: open}
	for tried := err != nil; len(t.open) > 0; tried = false {
		if !tried {
			err = l.attempt(ctx, t)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, eventstore.ErrMoved), errors.Is(err, errAnew):
			t.conflicts++
			l.stats.conflicts.Add(1)
		case !l.outcomeKnown(err):
			l.fence, l.loaded, t.lookUp = true, false, true
			l.opts.Logger.Warn("the outcome of an append is unknown", "commands", len(t.open), "error", err)
			t.backOff(ctx)
		case errors.As(err, &appendError{}) && eventstore.AnsweredAlready(err):
			t.lookUp = true
		case errors.As(err, &appendError{}) && eventstore.DataError(err):
			if l.bisect(ctx, t, err) {
				return
			}
		default:
			l.opts.Logger.Warn("deciding commands failed, trying again", "commands", len(t.open), "error", err)
			t.backOff(ctx)
		}
		if ctx.Err() != nil {
			l.unavailable(t.open, err)
			return
		}
	}
	l.stats.down.Store(false)
}

// outcomeKnown is false after an append that may have been committed, or may still be.
func (l *Lane) outcomeKnown(err error) bool {
	return !errors.As(err, &appendError{}) || !eventstore.Unknown(err)
}

// bisect finds the command whose data cannot be stored, which fails alone.
// False: the model may be to blame, it will be loaded anew and the turn goes on.
func (l *Lane) bisect(ctx context.Context, t *turn, err error) bool {
	if eventstore.Contradicts(err) && !t.reloaded {
		t.reloaded, l.loaded = true, false
		l.opts.Logger.Error("the model contradicts the log, loading it anew", "error", err)
		return false
	}
	if len(t.open) == 1 {
		l.opts.Logger.Error("a command cannot be stored", "command", t.open[0].ID, "error", err)
		l.fail(t.open[0], fmt.Errorf("store command %s: %w", t.open[0].ID, err))
		return true
	}
	half := len(t.open) / 2
	l.settle(ctx, t.open[:half], nil)
	l.settle(ctx, t.open[half:], nil)
	return true
}

// turn is the state of settling one batch.
type turn struct {
	open      []*item // without an outcome yet
	conflicts int     // in a row
	failures  int
	lookUp    bool // some may have an answer in the log
	reloaded  bool
}

func (t *turn) backOff(ctx context.Context) {
	t.failures++
	timer := time.NewTimer(min(time.Millisecond<<min(t.failures, 10), maxBackoff))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// attempt decides the open commands once and appends. An error leaves the
// model as of the head, or not loaded; some commands may have been answered.
func (l *Lane) attempt(ctx context.Context, t *turn) error {
	if err := l.ready(ctx); err != nil {
		return err
	}
	if t.lookUp {
		if err := l.answerKnown(ctx, t); err != nil || len(t.open) == 0 {
			return err
		}
	}
	if err := l.fetchMissing(ctx, t); err != nil {
		return err
	}
	if t.conflicts >= conflictsBeforeLock {
		l.locks = batchesUnderLock
	}
	if l.locks > 0 {
		l.locks--
		return l.attemptLocked(ctx, t)
	}
	p, ok := l.decide(t)
	if !ok {
		return nil
	}
	if p.empty() {
		if p.unsure {
			if err := l.confirm(ctx); err != nil {
				return err
			}
		}
		l.finish(t, p, l.head)
		return nil
	}
	head, err := l.log.Append(ctx, p.batch)
	if err != nil {
		return l.notAppended(ctx, err)
	}
	l.finish(t, p, head)
	return nil
}

// notAppended makes the model what the log is, as far as that is known.
func (l *Lane) notAppended(ctx context.Context, err error) error {
	if l.loaded {
		l.model.Rollback()
	}
	if errors.Is(err, eventstore.ErrMoved) {
		return errors.Join(err, l.refresh(ctx))
	}
	return appendError{err}
}

// attemptLocked is attempt with the head locked from before the decision until after the append.
func (l *Lane) attemptLocked(ctx context.Context, t *turn) error {
	l.stats.locked.Add(1)
	var p plan
	ok := true
	head, err := l.log.Locked(ctx, l.head, func(d eventstore.Delta, _ eventstore.Known) (eventstore.Batch, error) {
		if err := l.take(d); err != nil {
			return eventstore.Batch{}, ownError{err}
		}
		p, ok = l.decide(t)
		if !ok {
			return eventstore.Batch{}, nil
		}
		return p.batch, nil
	})
	switch {
	case err == nil && ok:
		l.finish(t, p, head)
		return nil
	case err == nil:
		return nil
	}
	if l.loaded {
		l.model.Rollback()
	}
	var n ownError
	if errors.As(err, &n) {
		return n.error
	}
	return appendError{err}
}

// ownError marks an error of our own from within Locked.
type ownError struct{ error }

// ready makes the model hold the state of the log, after raising the epoch if an append's outcome is unknown.
func (l *Lane) ready(ctx context.Context) error {
	if l.fence {
		if _, err := l.log.Fence(ctx); err != nil {
			return err
		}
		l.fence = false
		l.stats.fences.Add(1)
	}
	if l.loaded {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	d, err := l.log.Live(ctx)
	if err != nil {
		return err
	}
	if d.Position < l.head {
		l.opts.Logger.Error("the log went backwards", "from", l.head, "to", d.Position)
		l.recent.clear()
	}
	l.model.Reset()
	if err := l.model.Load(d.Rows); err != nil {
		return fmt.Errorf("load the live rows: %w", err)
	}
	l.head, l.epoch, l.loaded = d.Position, d.Epoch, true
	return nil
}

// refresh takes over what other replicas have written.
func (l *Lane) refresh(ctx context.Context) error {
	d, err := l.log.Since(ctx, l.head)
	if err != nil {
		return err
	}
	return l.take(d)
}

func (l *Lane) take(d eventstore.Delta) error {
	if d.Position < l.head || d.Forgotten || d.Epoch != l.epoch {
		l.loaded = false
		return errAnew
	}
	if err := l.model.Load(d.Rows); err != nil {
		l.loaded = false
		return fmt.Errorf("load the changed rows: %w", err)
	}
	l.head = d.Position
	return nil
}

// confirm checks that what was decided without writing anything was decided on the newest state.
func (l *Lane) confirm(ctx context.Context) error {
	head, epoch, err := l.log.Head(ctx)
	if err != nil {
		l.model.Rollback()
		return err
	}
	if head == l.head && epoch == l.epoch {
		return nil
	}
	l.model.Rollback()
	return errors.Join(eventstore.ErrMoved, l.refresh(ctx))
}

// fetchMissing loads rows that the commands need and the model does not hold.
func (l *Lane) fetchMissing(ctx context.Context, t *turn) error {
	var refs []eventstore.Ref
	for _, it := range slices.Clone(t.open) {
		missing, err := l.missing(it)
		if err != nil {
			l.drop(t, it, err)
			return l.ready(ctx)
		}
		refs = append(refs, missing...)
	}
	if len(refs) == 0 {
		return nil
	}
	slices.SortFunc(refs, compareRefs)
	rows, err := l.log.Rows(ctx, slices.Compact(refs))
	if err != nil {
		return err
	}
	if err := l.model.Load(rows); err != nil {
		l.loaded = false
		return fmt.Errorf("load rows that were missing: %w", err)
	}
	newer := func(r eventstore.Row) bool { return r.Position > l.head }
	if !slices.ContainsFunc(rows, newer) {
		return nil
	}
	if err := l.refresh(ctx); err != nil { // the model is ahead in these rows only: not a state that ever was
		l.loaded = false
		return err
	}
	return nil
}
