package commands

import (
	"context"

	"github.com/rendering-resource-manager/rrm/domain"
)

// stream serves commands while all goes well: those that arrive while an
// append is under way are decided meanwhile, on the state that it will leave,
// and are appended together as soon as it is done. What does not go well is
// left to settle, which does one thing after another.
type stream struct {
	*Lane
	known   map[domain.CommandID]*item // the commands of next and flying
	next    *flight                    // decided, to be appended; nil: none
	flying  *flight                    // being appended; nil: none
	waiting []*item                    // not decided yet
}

// flight is a batch on its way.
type flight struct {
	turn
	plan

	ctx    context.Context //nolint:containedctx // its time limit, which began with its first command
	cancel context.CancelFunc
	done   chan error // of the append, of capacity 1
}

// calm says that nothing is known that would spoil a stream.
func (l *Lane) calm() bool {
	return l.loaded && !l.fence && l.locks == 0 && !l.stats.down.Load()
}

// stream serves it and what comes behind until there is nothing to do, until
// stop, or until something does not go well. Whatever it took is answered when it returns.
func (l *Lane) stream(stop <-chan struct{}, it *item) {
	s := &stream{Lane: l, known: map[domain.CommandID]*item{}, waiting: l.fill(it)}
	going := true
	for going && len(s.waiting) > 0 {
		it, s.waiting = s.waiting[0], s.waiting[1:]
		going = s.add(it)
	}
	for going && (s.next != nil || s.flying != nil) {
		if s.flying == nil {
			going = s.send()
			continue
		}
		in := l.in
		if s.next != nil && len(s.next.open) >= l.opts.MaxBatch {
			in = nil
		}
		select {
		case it := <-in:
			going = s.add(it)
		case err := <-s.flying.done:
			going = s.land(err)
		case <-stop:
			going = false
		}
	}
	s.end()
}

// add decides one command more. False: the stream must end first, because the
// model misses rows or is broken.
func (s *stream) add(it *item) bool {
	if !s.admitOne(it, s.known) {
		return true
	}
	refs, err := s.missing(it)
	if err != nil {
		s.fail(it, err)
		return false
	}
	if len(refs) > 0 {
		s.waiting = append([]*item{it}, s.waiting...)
		return false
	}
	if s.next == nil {
		head := s.head
		if s.flying != nil {
			head = s.flying.head()
		}
		s.next = &flight{plan: s.newPlan(head)}
		s.next.ctx, s.next.cancel = context.WithTimeout(context.Background(), s.opts.Timeout)
	}
	if err := s.extend(&s.next.plan, it); err != nil {
		s.fail(it, err)
		return false
	}
	s.next.open = append(s.next.open, it)
	return true
}

// send begins the append of what was decided; nothing may be flying.
func (s *stream) send() bool {
	f := s.next
	s.next = nil
	if f.empty() {
		var err error
		if f.unsure {
			err = s.confirm(f.ctx)
		}
		return s.settled(f, err)
	}
	s.seal(&f.plan)
	f.done = make(chan error, 1)
	go func() {
		_, err := s.log.Append(f.ctx, f.batch)
		f.done <- err
	}()
	s.flying = f
	return true
}

// land takes the outcome of the append.
func (s *stream) land(err error) bool {
	f := s.flying
	s.flying = nil
	if err != nil {
		err = s.notAppended(f.ctx, err)
	}
	return s.settled(f, err)
}

// settled answers the commands of f. After an error all is decided again, that
// of the next flight too: it was decided on a state that never came to be.
func (s *stream) settled(f *flight, err error) bool {
	defer f.cancel()
	if err == nil {
		for _, it := range f.open {
			delete(s.known, it.ID)
		}
		s.finish(&f.turn, f.plan, f.head())
		return true
	}
	s.settle(f.ctx, f.open, err)
	if n := s.next; n != nil {
		s.next = nil
		s.settleOpen(n.ctx, n.open)
		n.cancel()
	}
	return false
}

// end answers everything that the stream has taken.
func (s *stream) end() {
	if s.flying != nil {
		s.land(<-s.flying.done)
	}
	if f := s.next; f != nil && !s.loaded { // the model is broken
		s.next = nil
		s.settleOpen(f.ctx, f.open)
		f.cancel()
	}
	if s.next != nil {
		s.send()
	}
	if s.flying != nil {
		s.land(<-s.flying.done)
	}
	if len(s.waiting) > 0 {
		s.serve(context.Background(), s.waiting)
	}
}
