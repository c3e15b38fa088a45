package pool

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

func (d *decider) resourceCommand(c Command) error {
	switch c := c.(type) {
	case RegisterResource:
		return d.register(c)
	case ReportAddress:
		return d.readdress(c)
	case DrainResource:
		return d.drain(c)
	case StopResource:
		return d.stop(c)
	case ReportStarting:
		return d.starting(c)
	case ReportReady:
		return d.ready(c)
	case ReportFailed:
		return d.failed(c)
	case ReportLost:
		return d.lost(c)
	case ReportStopped:
		return d.stopped(c)
	case ReportModelLoaded:
		return d.modelLoaded(c)
	case ReportModelFailed:
		return d.modelFailed(c)
	}
	return domain.Invalid("command", "unknown command %T", c)
}

func (d *decider) resource(id domain.ResourceID) (*Resource, error) {
	if r := d.s.resources[id]; r != nil {
		return r, nil
	}
	return nil, domain.NotFound("resource", string(id))
}

// Bounds of what a machine may say of itself.
const (
	maxLabels    = 32
	maxLabelText = 256
	maxSlots     = 1024
)

// register takes in a resource that runs already; it becomes ready when its probe is answered.
func (d *decider) register(c RegisterResource) error {
	p, err := d.pool(c.Renderer)
	if err != nil {
		return err
	}
	set := p.Settings
	if set.Launcher != domain.LauncherStatic {
		return domain.Conflict("not_static", "resources of %q are started by the %s launcher; only those of a static renderer register themselves", c.Renderer, set.Launcher)
	}
	if c.Slots == 0 {
		c.Slots = set.Slots
	}
	if c.Slots < 1 || c.Slots > maxSlots {
		return domain.Invalid("slots", "a resource has 1 to %d slots", maxSlots)
	}
	if len(c.Labels) > maxLabels {
		return domain.Invalid("labels", "a resource has at most %d labels", maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		if err := errors.Join(domain.CheckText("labels", k, maxLabelText), domain.CheckText("labels."+k, c.Labels[k], maxLabelText)); err != nil {
			return err
		}
	}
	if c.Address == "" {
		return domain.Invalid("address", "a resource says its host and port")
	}
	if err := errors.Join(domain.CheckText("address", c.Address, maxWord), domain.CheckText("node", c.Node, maxWord)); err != nil {
		return err
	}
	if d.s.resources[c.Resource] != nil {
		return domain.Conflict("resource_exists", "there is a resource %q already", c.Resource)
	}
	for _, id := range d.s.Pools() { // of other renderers too: nobody may pose as their resources
		for _, r := range d.s.of(id).resources {
			if r.Address == c.Address {
				return domain.Conflict("address_in_use", "there is a resource %q at %s already", r.ID, c.Address)
			}
		}
	}
	if c.Resource == "" {
		c.Resource = d.nextResource(p)
	}
	d.emit(c.Renderer, ResourceRequested{Resource: c.Resource, Launcher: domain.LauncherStatic, Slots: c.Slots,
		MaxModels: set.ModelsPerResource, MemoryMiB: set.MemoryMiB, Labels: c.Labels, Reason: "it registered itself"})
	d.emit(c.Renderer, ResourceStarting{Resource: c.Resource, Address: c.Address, Node: c.Node})
	return nil
}

func (d *decider) drain(c DrainResource) error {
	r, err := d.resource(c.Resource)
	switch {
	case err != nil:
		return err
	case r.Coming():
		d.emit(r.Renderer, ResourceStopping{Resource: r.ID, Reason: c.Reason})
	case r.State == ResourceStateReady:
		users, why := slices.Clone(r.Users), cmp.Or(c.Reason, "it is drained")
		d.emit(r.Renderer, ResourceDraining{Resource: r.ID, Reason: c.Reason})
		for _, u := range users {
			if u.Kind == UserSession {
				d.emit(r.Renderer, SessionWarned{Session: domain.SessionID(u.ID), Resource: r.ID, Reason: why, Until: c.Until})
			}
		}
	}
	return nil
}

func (d *decider) readdress(c ReportAddress) error {
	if r := d.s.resources[c.Resource]; r != nil && !r.Ended && c.Address != "" && (r.Address != c.Address || cmp.Or(c.Node, r.Node) != r.Node) {
		d.emit(r.Renderer, ResourceReaddressed{Resource: r.ID, Address: c.Address, Node: c.Node})
	}
	return nil
}

func (d *decider) stop(c StopResource) error {
	r, err := d.resource(c.Resource)
	if err != nil || r.Ended || r.State == ResourceStateStopping {
		return err
	}
	users := slices.Clone(r.Users) // the events take them away
	d.emit(r.Renderer, ResourceStopping{Resource: r.ID, Reason: c.Reason})
	d.evacuate(r, users, ClassInterrupted, "resource_stopped", c.Reason)
	return nil
}

func (d *decider) starting(c ReportStarting) error {
	l := c.Launched
	if r := d.s.resources[l.Resource]; r != nil && r.State == ResourceStateRequested {
		d.emit(r.Renderer, ResourceStarting{Resource: r.ID, Handle: l.Handle, Address: l.Address, Node: l.Node})
	}
	return nil
}

func (d *decider) ready(c ReportReady) error {
	if r := d.s.resources[c.Resource]; r != nil && r.Coming() {
		d.emit(r.Renderer, ResourceReady{Resource: r.ID, Address: c.Address, Node: c.Node, Capabilities: c.Capabilities,
			JobKinds: c.JobKinds, Seconds: d.at.Sub(r.RequestedAt).Seconds()})
	}
	return nil
}

// failed ends a resource that did not start or hangs. A pool whose resources
// fail to start, or soon after, is backed off.
func (d *decider) failed(c ReportFailed) error {
	r := d.s.resources[c.Resource]
	if r == nil || r.Ended {
		return nil
	}
	if r.State == ResourceStateStopping {
		d.emit(r.Renderer, ResourceStopped{Resource: r.ID, Reason: c.Reason})
		return nil
	}
	unproven, users := r.unproven(d.at), slices.Clone(r.Users)
	d.emit(r.Renderer, ResourceFailed{Resource: r.ID, Code: c.Code, Reason: c.Reason, Output: c.Output})
	if unproven {
		d.backOff(r.Renderer, c.Reason)
	}
	d.evacuate(r, users, ClassTransient, "resource_failed", c.Reason)
	return nil
}

func (d *decider) backOff(id domain.RendererID, reason string) {
	if p := d.s.Pool(id); p != nil {
		d.emit(id, PoolBackedOff{Failures: p.Failures, Until: d.at.Add(scaling.Backoff(p.Failures)), Reason: reason})
	}
}

// lost ends a resource that went away by itself: before it was ready that is a
// failed start. One loss soon after may be chance, the next in a row backs the pool off.
func (d *decider) lost(c ReportLost) error {
	r := d.s.resources[c.Resource]
	if r == nil || r.Ended {
		return nil
	}
	if r.State != ResourceStateReady && r.State != ResourceStateDraining {
		return d.failed(ReportFailed{Resource: c.Resource, Code: "exited", Reason: c.Reason, Output: c.Output})
	}
	unproven, users := r.unproven(d.at), slices.Clone(r.Users)
	d.emit(r.Renderer, ResourceLost{Resource: r.ID, Reason: c.Reason})
	if unproven && d.s.failures(r.Renderer) > 1 {
		d.backOff(r.Renderer, c.Reason)
	}
	d.evacuate(r, users, ClassTransient, "resource_lost", c.Reason)
	return nil
}

func (d *decider) stopped(c ReportStopped) error {
	if r := d.s.resources[c.Resource]; r != nil && r.State == ResourceStateStopping {
		d.emit(r.Renderer, ResourceStopped{Resource: r.ID, Reason: r.Reason})
	}
	return nil
}

// evacuate tells the users of a resource that is going: sessions move or are lost, jobs are tried again.
func (d *decider) evacuate(r *Resource, users []User, class Class, code, reason string) {
	reason = "resource " + string(r.ID) + " went away" + because(reason)
	for _, u := range users {
		if u.Kind == UserJob {
			if j := d.held(domain.JobID(u.ID), r.ID); j != nil {
				d.failAttempt(j, class, code, reason)
			}
			continue
		}
		e := d.s.sessions[domain.SessionID(u.ID)]
		if e == nil || e.Ended {
			continue
		}
		if e.OnLost == OnLostMove {
			d.emit(r.Renderer, SessionMoved{Session: e.ID, Resource: r.ID, Reason: reason})
		} else {
			d.emit(r.Renderer, SessionLost{Session: e.ID, Resource: r.ID, Reason: reason})
		}
	}
}

func (d *decider) modelLoaded(c ReportModelLoaded) error {
	r := d.s.resources[c.Resource]
	if r == nil {
		return nil
	}
	h := r.Holds(c.Model)
	if h == nil || h.State != placement.Loading {
		return nil
	}
	d.emit(r.Renderer, ModelLoaded{Resource: r.ID, Model: c.Model, Seconds: max(0, c.Seconds), MemoryMiB: max(0, c.MemoryMiB)})
	for _, u := range r.Users {
		if e := d.s.sessions[domain.SessionID(u.ID)]; u.Kind == UserSession && u.Model == c.Model && e != nil && e.State == SessionStateLoading {
			d.emit(r.Renderer, SessionReady{Session: e.ID, Resource: r.ID, Seconds: d.at.Sub(e.RequestedAt).Seconds()})
		}
	}
	return nil
}

// permanentLoad names the failures of a load that another try would only repeat.
var permanentLoad = []string{"model_not_found", "model_invalid", CodeTooLarge}

// modelFailed ends what waited for the load; the resource stays usable for others.
func (d *decider) modelFailed(c ReportModelFailed) error {
	r := d.s.resources[c.Resource]
	if r == nil {
		return nil
	}
	h := r.Holds(c.Model)
	if h == nil || h.State != placement.Loading {
		return nil
	}
	class := ClassTransient
	if slices.Contains(permanentLoad, c.Code) {
		class = ClassPermanent
	}
	users := slices.Clone(r.Users) // the events take them away
	d.emit(r.Renderer, ModelFailed{Resource: r.ID, Model: c.Model, Code: c.Code, Reason: c.Reason})
	for _, u := range users {
		if u.Model != c.Model {
			continue
		}
		if j := d.held(domain.JobID(u.ID), r.ID); u.Kind == UserJob && j != nil {
			d.failAttempt(j, class, c.Code, c.Reason)
		}
		if e := d.s.sessions[domain.SessionID(u.ID)]; u.Kind == UserSession && e != nil && !e.Ended {
			d.emit(r.Renderer, SessionFailed{Session: e.ID, Resource: r.ID, Code: c.Code, Reason: c.Reason})
		}
	}
	return nil
}

// tick lets time pass in every pool.
func (d *decider) tick() error {
	for _, id := range d.s.Pools() {
		p := d.s.of(id)
		d.tickSessions(p)
		d.tickJobs(p)
		d.touch(id)
	}
	return nil
}
