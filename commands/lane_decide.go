package commands

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// plan is what was decided for the open commands, before it is appended.
type plan struct {
	batch    eventstore.Batch
	outcomes []outcome // of t.open, in its order
	unsure   bool      // some command left no trace in the batch, so the append does not confirm it
}

// head is where the log is when the plan is carried out.
func (p *plan) head() int64 { return p.batch.Expected + int64(len(p.batch.Events)) }

func (p *plan) empty() bool { return len(p.batch.Events) == 0 && len(p.batch.Answers) == 0 }

// decide decides every open command. False: one of them broke the model; it
// has been answered and taken out, and the others must be decided again.
func (l *Lane) decide(t *turn) (plan, bool) {
	p := l.newPlan(l.head)
	for _, it := range t.open {
		if err := l.extend(&p, it); err != nil {
			l.drop(t, it, err)
			return plan{}, false
		}
	}
	l.seal(&p)
	return p, true
}

func (l *Lane) newPlan(head int64) plan {
	return plan{batch: eventstore.Batch{Expected: head, Epoch: l.epoch}}
}

// extend decides one command more. After an error the model must be loaded anew.
func (l *Lane) extend(p *plan, it *item) error {
	head := p.head()
	d, err := l.decideOne(head, it)
	refusal, refused := domain.AsRefusal(err)
	if err != nil && !refused {
		if l.loaded { // nothing was changed, so the others are not concerned
			p.outcomes = append(p.outcomes, outcome{err: err})
			return nil
		}
		return err
	}
	head += int64(len(d.Events))
	p.batch.Events = append(p.batch.Events, d.Events...)
	o := outcome{answer: Answer{Body: d.Answer, Position: head}}
	if refused {
		o = outcome{answer: Answer{Position: head}, err: refusal}
	}
	p.outcomes = append(p.outcomes, o)
	if it.Transient {
		p.unsure = p.unsure || len(d.Events) == 0
		return nil
	}
	body, err := encodeOutcome(d.Answer, refusal)
	if err != nil {
		l.loaded = false
		return err
	}
	p.batch.Answers = append(p.batch.Answers, eventstore.Answer{Command: it.ID, Hash: it.Hash, Body: body, Position: head})
	return nil
}

// seal ends the plan: what is decided from now on is of the next.
func (l *Lane) seal(p *plan) {
	if len(p.batch.Events) > 0 {
		p.batch.Rows = l.model.Changed()
	}
	l.model.Mark()
}

// decideOne turns a panic, or an error that left events behind, into an error
// and a model that must be loaded anew.
func (l *Lane) decideOne(head int64, it *item) (d Decided, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = Decided{}, l.broken(it, v)
		}
	}()
	meta := it.Meta
	if meta.Command == "" {
		meta.Command = it.ID
	}
	d, err = l.model.Decide(head, it.Command, meta)
	if _, refused := domain.AsRefusal(err); err != nil && !refused && len(d.Events) > 0 {
		l.loaded = false
	}
	return d, err
}

func (l *Lane) missing(it *item) (refs []eventstore.Ref, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = l.broken(it, v)
		}
	}()
	return l.model.Missing(it.Command), nil
}

func (l *Lane) broken(it *item, v any) error {
	l.loaded = false
	l.opts.Logger.Error("deciding a command panicked", "command", it.ID, "type", fmt.Sprintf("%T", it.Command), "panic", v, "stack", string(debug.Stack()))
	return fmt.Errorf("decide %T: panic: %v", it.Command, v)
}

// drop fails one command and takes it out of the turn; the model must be loaded anew.
func (l *Lane) drop(t *turn, it *item, err error) {
	l.loaded = false
	t.open = slices.DeleteFunc(slices.Clone(t.open), func(other *item) bool { return other == it })
	l.fail(it, err)
}

// finish keeps what was appended and answers the commands of the plan.
func (l *Lane) finish(t *turn, p plan, head int64) {
	l.model.Commit()
	l.head = head
	if !p.empty() {
		l.stats.batches.Add(1)
	}
	if l.opts.OnCommit != nil && len(p.batch.Events) > 0 {
		l.opts.OnCommit(head)
	}
	for i, it := range t.open {
		o := p.outcomes[i]
		_, refused := domain.AsRefusal(o.err)
		if !it.Transient && (o.err == nil || refused) {
			l.recent.put(it.ID, stored{hash: it.Hash, outcome: o})
		}
		if o.err != nil && !refused {
			l.fail(it, o.err)
			continue
		}
		l.reply(it, o)
	}
	t.open = nil
}

// answerKnown gives those commands that the log has an answer for that answer.
func (l *Lane) answerKnown(ctx context.Context, t *turn) error {
	var ids []domain.CommandID
	for _, it := range t.open {
		if !it.Transient {
			ids = append(ids, it.ID)
		}
	}
	known, err := l.log.Answers(ctx, ids)
	if err != nil {
		return err
	}
	t.lookUp = false
	open := t.open[:0:0]
	for _, it := range t.open {
		a, ok := known[it.ID]
		if it.Transient || !ok {
			open = append(open, it)
			continue
		}
		o, err := decodeOutcome(a)
		if err != nil {
			l.fail(it, err)
			continue
		}
		s := stored{hash: a.Hash, outcome: o}
		l.recent.put(it.ID, s)
		l.repeat(it, s)
	}
	t.open = open
	return nil
}

// repeat answers a command from a stored answer.
func (l *Lane) repeat(it *item, s stored) {
	if s.hash != it.Hash {
		l.reply(it, outcome{err: reused(it.ID)})
		return
	}
	o := s.outcome
	o.answer.Repeated = true
	l.reply(it, o)
}

func reused(id domain.CommandID) error {
	return domain.Conflict("idempotency_key_reused", "the key %q was used for another request", id)
}

// reply gives a command its outcome, and the same to its twins, as a repetition.
func (l *Lane) reply(it *item, o outcome) {
	l.stats.commands.Add(1)
	if o.answer.Repeated {
		l.stats.repeated.Add(1)
	}
	it.out <- o
	o.answer.Repeated = true
	for _, twin := range it.twins {
		l.reply(twin, o)
	}
}

func (l *Lane) fail(it *item, err error) {
	l.stats.failed.Add(1 + int64(len(it.twins)))
	l.reply(it, outcome{err: err})
}

// unavailable tells commands that the store did not answer in time. They may
// have been carried out: the same ID will get the answer.
func (l *Lane) unavailable(open []*item, err error) {
	l.stats.down.Store(true)
	l.opts.Logger.Error("the store is unavailable", "commands", len(open), "error", err)
	for _, it := range open {
		l.fail(it, domain.Unavailable("store_unavailable", 2*time.Second, "the event store does not answer; repeat the request with the same key"))
	}
}

func compareRefs(a, b eventstore.Ref) int {
	return cmp.Or(cmp.Compare(a.View, b.View), cmp.Compare(a.ID, b.ID))
}
