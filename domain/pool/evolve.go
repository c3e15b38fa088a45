package pool

import (
	"cmp"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// Evolve folds an event into the state. It decides nothing and cannot fail:
// what is in the log has happened. An event about something that is not there
// (its row was pruned) changes nothing.
func (s *State) Evolve(r Recorded) {
	switch e := r.Event.(type) {
	case AdmissionChanged:
		s.put(&Service{Version: r.Version, Open: e.Open, Reason: e.Reason})
		return
	case RendererConfigured:
		s.evolveConfigured(r, e)
	case RendererRemoved, PoolScaled, PoolBackedOff, PoolAdvised, PoolShadowed:
		s.evolvePool(r)
	case SessionOpened, SessionRequested, SessionQueued, SessionStarting, SessionAllocated, SessionReady, SessionWarned, SessionRejected,
		SessionReleased, SessionExpired, SessionLost, SessionMoved, SessionFailed:
		s.evolveSession(r)
	case JobSubmitted, JobRejected, JobUnblocked, JobSpread, JobQueued, JobLate, JobAssigned, JobStarted, JobSucceeded, JobRetried, JobYielding, JobMoved, JobFailed, JobCancelled:
		s.evolveJob(r)
	default:
		s.evolveResource(r)
	}
	s.countVersion(r)
}

// countVersion keeps the length of the pool's stream in its row, and the demand on it.
func (s *State) countVersion(r Recorded) {
	s.changePool(rendererOf(r.Stream), func(p *Pool) {
		p.Version = r.Version
		s.learnDemand(r, p)
		ps := s.of(p.Settings.ID)
		p.compare(r.At, len(ps.resources), &ps.tally)
	})
}

// rendererOf is the inverse of domain.PoolStream.
func rendererOf(st domain.Stream) domain.RendererID {
	return domain.RendererID(st[min(len(st), len("pool/")):])
}

func (s *State) evolveConfigured(r Recorded, e RendererConfigured) {
	next := Pool{Seq: r.Position}
	if ps := s.find(e.Renderer.ID); ps != nil && ps.pool != nil {
		next = ps.pool.copy()
	}
	old := next.Settings
	next.Settings, next.Removed, next.Version = e.Renderer, false, r.Version
	next.policy = nil
	next.shadowAfter(old)
	next.Advice = next.stillAsked()
	next.Failures, next.BackoffUntil, next.LastFailure = 0, nil, "" // new settings deserve a new try
	s.put(&next)
}

func (s *State) evolvePool(r Recorded) {
	s.changePool(rendererOf(r.Stream), func(p *Pool) {
		switch e := r.Event.(type) {
		case RendererRemoved:
			p.Removed = true
		case PoolScaled:
			p.LastScaling = p.LastScaling.next(r, e)
		case PoolBackedOff:
			p.BackoffUntil, p.LastFailure = &e.Until, e.Reason
		case PoolAdvised:
			p.evolveAdvised(r, e)
		case PoolShadowed:
			p.evolveShadowed(r, e)
		}
	})
}

func (s *State) evolveResource(r Recorded) {
	switch e := r.Event.(type) {
	case ResourceRequested:
		s.evolveRequested(r, e)
	case ResourceStarting:
		s.changeResource(e.Resource, func(x *Resource) {
			x.enter(ResourceStateStarting, r.At, "")
			x.Handle, x.Address, x.Node = e.Handle, e.Address, e.Node
		})
	case ResourceReady:
		s.changeResource(e.Resource, func(x *Resource) {
			x.enter(ResourceStateReady, r.At, "")
			x.Address, x.Capabilities, x.JobKinds = e.Address, e.Capabilities, e.JobKinds
			x.Node = cmp.Or(e.Node, x.Node)
			x.ReadyAt, x.IdleSince, x.PriorFailures = r.when(), r.when(), s.failures(rendererOf(r.Stream))
			if x.Model != "" {
				x.Models = []Loaded{{Model: x.Model, State: placement.Loaded, Since: r.At, LastUsed: r.At}}
			}
		})
		s.changePool(rendererOf(r.Stream), func(p *Pool) {
			p.FrameRanges = slices.Contains(e.Capabilities, domain.CapabilityRanges)
			p.StartSeconds = learn(p.StartSeconds, p.Starts, e.Seconds)
			p.Starts, p.Failures, p.BackoffUntil, p.LastFailure = p.Starts+1, 0, nil, ""
		})
	case ResourceReaddressed:
		s.changeResource(e.Resource, func(x *Resource) { x.Address, x.Node = e.Address, cmp.Or(e.Node, x.Node) })
	case ResourceDraining:
		s.changeResource(e.Resource, func(x *Resource) { x.enter(ResourceStateDraining, r.At, e.Reason) })
	case ResourceStopping:
		s.changeResource(e.Resource, func(x *Resource) { x.enter(ResourceStateStopping, r.At, e.Reason) })
	case ResourceStopped:
		s.changeResource(e.Resource, func(x *Resource) { x.enter(ResourceStateStopped, r.At, e.Reason) })
	case ResourceLost:
		s.countFailure(r, e.Resource, e.Reason)
		s.changeResource(e.Resource, func(x *Resource) { x.enter(ResourceStateLost, r.At, e.Reason) })
	case ResourceFailed:
		s.countFailure(r, e.Resource, e.Reason)
		s.changeResource(e.Resource, func(x *Resource) {
			x.enter(ResourceStateFailed, r.At, e.Reason)
			x.Output = e.Output
		})
	default:
		s.evolveModel(r)
	}
}

// failures are the failed starts in a row of a pool.
func (s *State) failures(id domain.RendererID) int {
	if p := s.find(id); p != nil && p.pool != nil {
		return p.pool.Failures
	}
	return 0
}

// countFailure counts the end of a resource that never proved itself as a failed start.
func (s *State) countFailure(r Recorded, id domain.ResourceID, reason string) {
	x := s.resources[id]
	if x == nil || !x.unproven(r.At) {
		return
	}
	s.changePool(rendererOf(r.Stream), func(p *Pool) {
		p.Failures, p.LastFailure = max(p.Failures, x.PriorFailures)+1, reason
	})
}

func (s *State) evolveRequested(r Recorded, e ResourceRequested) {
	s.put(&Resource{
		ID: e.Resource, Seq: r.Position, Renderer: rendererOf(r.Stream), Launcher: e.Launcher,
		State: ResourceStateRequested, StateSince: r.At, Reason: e.Reason, Model: e.Model,
		Overrides: e.Overrides, Key: e.Overrides.Key(), Labels: e.Labels, Slots: e.Slots, MaxModels: e.MaxModels, MemoryMiB: e.MemoryMiB, RequestedAt: r.At,
	})
	s.changePool(rendererOf(r.Stream), func(p *Pool) { p.Resources++ })
}

func (s *State) evolveModel(r Recorded) {
	renderer := rendererOf(r.Stream)
	switch e := r.Event.(type) {
	case ModelLoading:
		known := s.Model(renderer, e.Model)
		s.changeResource(e.Resource, func(x *Resource) {
			h := Loaded{Model: e.Model, State: placement.Loading, Since: r.At, LastUsed: r.At, LoadSeconds: e.Seconds}
			if known != nil {
				h.MemoryMiB = known.MemoryMiB
			}
			x.Models = append(x.Models, h)
		})
	case ModelLoaded:
		s.changeResource(e.Resource, func(x *Resource) {
			if h := x.Holds(e.Model); h != nil {
				h.State, h.Since, h.LoadSeconds, h.MemoryMiB = placement.Loaded, r.At, e.Seconds, e.MemoryMiB
			}
		})
		counted := e.Seconds
		s.changeModel(renderer, e.Model, r.Position, func(m *Model) {
			counted = m.countedLoad(e.Seconds)
			m.learnLoad(counted)
			m.MemoryMiB = e.MemoryMiB
		})
		s.changePool(renderer, func(p *Pool) {
			p.LoadSeconds = learnSlowly(p.LoadSeconds, p.Loads, counted)
			p.Loads++
		})
	case ModelFailed:
		s.changeResource(e.Resource, func(x *Resource) { x.dropModel(e.Model) })
	case ModelEvicted:
		s.changeResource(e.Resource, func(x *Resource) { x.dropModel(e.Model) })
	}
}

// take gives a slot of a resource to a user, who asked for it at a time, and counts the use of the model.
func (s *State) take(r Recorded, id domain.ResourceID, u User, asked time.Time, warm bool) {
	s.changeResource(id, func(x *Resource) { x.addUser(u) })
	s.changeModel(rendererOf(r.Stream), u.Model, r.Position, func(m *Model) {
		if m.Uses == 0 {
			m.asked(r.At)
		}
		if m.Uses > 0 && m.InUse == 0 && asked.After(m.LastUsed) {
			m.Pattern = m.Pattern.Add(asked.Sub(m.LastUsed))
		}
		m.Uses, m.LastUsed, m.InUse = m.Uses+1, r.At, m.InUse+1
		if warm {
			m.WarmUses++
		}
	})
}

// leave frees a user's slot, if it has one.
func (s *State) leave(r Recorded, id domain.ResourceID, kind, user string) {
	var left User
	if id != "" {
		s.changeResource(id, func(x *Resource) { left = x.dropUser(kind, user, r.At) })
	}
	if left.ID == "" {
		return
	}
	renderer := rendererOf(r.Stream)
	s.changeModel(renderer, left.Model, r.Position, func(m *Model) { m.InUse, m.LastUsed = max(0, m.InUse-1), r.At })
	s.changePool(renderer, func(p *Pool) { p.learn(p.demand().Served(left.Kind == UserSession, r.At.Sub(left.Since).Seconds())) })
}

func (s *State) evolveSession(r Recorded) {
	renderer := rendererOf(r.Stream)
	switch e := r.Event.(type) {
	case SessionOpened:
		s.put(&Session{
			ID: e.Session, Seq: r.Position, Renderer: renderer, Owner: e.Owner, State: SessionStateOpened, StateSince: r.At,
			RequestedAt: r.At, LeaseSeconds: e.LeaseSeconds, OnLost: OnLostEnd, Throughout: true,
		})
	case SessionRequested:
		s.evolveSessionRequested(r, e)
	case SessionQueued:
		s.changeSession(e.Session, func(x *Session) {
			x.enter(SessionStateQueued, r.At)
			x.Decision, x.Resource, x.Code, x.Reason = r.Position, "", e.Decision.Outcome, e.Decision.Reason
			x.Expected = expected(x.Expected, r.At, e.Basis, e.LowSeconds, e.EstimateSeconds, e.HighSeconds, e.RawSeconds)
		})
	case SessionStarting:
		s.changeSession(e.Session, func(x *Session) {
			x.enter(SessionStateStarting, r.At)
			x.Code, x.Reason = "resource_starting", "resource "+string(e.Resource)+" is starting"
		})
	case SessionAllocated:
		s.evolveAllocated(r, e)
	case SessionReady:
		s.changeSession(e.Session, func(x *Session) {
			x.enter(SessionStateReady, r.At)
			x.ReadyAt = r.when()
		})
	case SessionWarned:
		s.changeSession(e.Session, func(x *Session) { x.Warning, x.GoesAt = e.Reason, e.Until })
	case SessionRejected:
		s.drop(Key{ViewSessions, string(e.Session)})
		if e.Code == CodeNoCapacity {
			until := r.At.Add(seconds(e.RetryAfterSeconds) + unmetGrace)
			s.changePool(renderer, func(p *Pool) {
				p.Unmet = append(slices.Clone(p.Unmet[max(0, len(p.Unmet)-maxUnmet+1):]), Unmet{Model: e.Model, Until: until})
			})
		}
	default:
		s.evolveSessionEnd(r)
	}
}

func (s *State) evolveSessionRequested(r Recorded, e SessionRequested) {
	n := &Session{
		ID: e.Session, Seq: r.Position, Renderer: rendererOf(r.Stream), Model: e.Model, Owner: e.Owner, Params: e.Params, Home: e.Home,
		State: SessionStateQueued, StateSince: r.At, RequestedAt: r.At, LeaseSeconds: e.LeaseSeconds,
		MaxSeconds: e.MaxSeconds, OnLost: e.OnLost, Overrides: e.Overrides,
	}
	if opened := s.sessions[e.Session]; opened != nil {
		n.Seq, n.Throughout = opened.Seq, opened.Throughout
	}
	if e.WaitSeconds > 0 {
		until := r.At.Add(seconds(e.WaitSeconds))
		n.WaitUntil = &until
	}
	n.Number, n.Seconds = s.asks(r, e.Model, e.Owner, false)
	s.put(n)
	if !s.cameAgain(rendererOf(r.Stream), e.Model) {
		s.arrive(r)
	}
}

// cameAgain takes a booking for a model to be that of a client who was refused before, if there is one.
func (s *State) cameAgain(id domain.RendererID, m domain.ModelKey) bool {
	ps := s.find(id)
	if ps == nil || ps.pool == nil {
		return false
	}
	if i := slices.IndexFunc(ps.pool.Unmet, func(u Unmet) bool { return u.Model == m }); i >= 0 {
		s.changePool(id, func(p *Pool) { p.Unmet = slices.Delete(slices.Clone(p.Unmet), i, i+1) })
		return true
	}
	return false
}

func (s *State) evolveAllocated(r Recorded, e SessionAllocated) {
	if before := s.sessions[e.Session]; before != nil {
		s.began(r, false, before.Expected)
	}
	u, asked := User{Kind: UserSession, ID: string(e.Session), Model: e.Model, Since: r.At}, r.At
	if x := s.sessions[e.Session]; x != nil {
		u.Seconds, asked = x.Seconds, x.RequestedAt
	}
	s.take(r, e.Resource, u, asked, e.Warm)
	s.firstFrame(r, e.Model, e.Waited, e.Warm)
	s.changeSession(e.Session, func(x *Session) {
		x.enter(SessionStateLoading, r.At)
		x.Resource, x.Warm, x.AllocatedAt, x.Decision, x.Code, x.Reason = e.Resource, e.Warm, r.when(), r.Position, "", e.Decision.Reason
		if e.Warm {
			x.enter(SessionStateReady, r.At)
			x.ReadyAt = r.when()
		}
	})
}

func (s *State) evolveSessionEnd(r Recorded) {
	var id domain.SessionID
	var change func(*Session)
	switch e := r.Event.(type) {
	case SessionReleased:
		id, change = e.Session, func(x *Session) { x.end(SessionStateReleased, r.At, "", e.Reason) }
	case SessionExpired:
		id, change = e.Session, func(x *Session) { x.end(SessionStateExpired, r.At, e.Code, e.Reason) }
	case SessionLost:
		id, change = e.Session, func(x *Session) { x.end(SessionStateLost, r.At, "resource_lost", e.Reason) }
	case SessionFailed:
		id, change = e.Session, func(x *Session) { x.end(SessionStateFailed, r.At, e.Code, e.Reason) }
	case SessionMoved:
		id, change = e.Session, func(x *Session) {
			x.enter(SessionStateQueued, r.At)
			x.Resource, x.AllocatedAt, x.ReadyAt, x.WaitUntil, x.Warning, x.GoesAt = "", nil, nil, nil, "", nil
			x.Expected = nil // nobody told it how long this wait will be
			x.Code, x.Reason, x.Moves = "moved", e.Reason, x.Moves+1
		}
	}
	before := s.sessions[id]
	if before == nil {
		return
	}
	s.leave(r, before.Resource, UserSession, string(id))
	if before.Holding() && before.AllocatedAt != nil {
		held := r.At.Sub(*before.AllocatedAt).Seconds()
		s.changePool(rendererOf(r.Stream), func(p *Pool) {
			p.HoldSeconds = learn(p.HoldSeconds, p.Holds, held)
			p.Holds++
		})
		s.changeOwner(before.Renderer, before.Owner, r.Position, func(o *Owner) {
			o.HoldSeconds = learnOwn(o.HoldSeconds, o.Holds, held)
			o.Holds++
		})
	}
	s.changeSession(id, change)
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

// A refused booking counts as demand until its client was told to come back, and a little longer.
const (
	unmetGrace = 5 * time.Second // for the client to notice and ask again
	maxUnmet   = 64
)
