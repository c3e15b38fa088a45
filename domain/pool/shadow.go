package pool

import (
	"reflect"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// Shadow is what the policy in the shadow would do, and how it compares with
// what is done. Its size at any time follows from what the pool really has then:
// what it would have had after days of its own deciding, only a simulation can tell.
type Shadow struct {
	Policy   string    `json:"policy"`
	Position int64     `json:"position"` // of the event that said so last
	Since    time.Time `json:"since"`    // when it came to wish for this size
	Size     int       `json:"size"`
	Reason   string    `json:"reason"`
	Changes  int       `json:"changes"`

	From     time.Time `json:"from"`                       // when the comparison began
	At       time.Time `json:"at"`                         // until when the sums go
	Would    float64   `json:"would_resource_seconds"`     // resource-seconds that it would have had
	Did      float64   `json:"did_resource_seconds"`       // that there were, those on their way out too
	Short    float64   `json:"would_short_seconds"`        // in which it would have had fewer slots than were in use or asked for
	DidShort float64   `json:"did_short_seconds"`          // in which somebody waited
	Live     int       `json:"occupied,omitempty"`         // resources since At
	Asked    int       `json:"asked,omitempty"`            // slots in use or asked for since At
	Waiting  int       `json:"waiting_for_slot,omitempty"` // since At
}

// shadowGap is the least time between two records of the shadow: a wish that flutters fills no log.
const shadowGap = 5 * time.Second

// shadow records what the policy in the shadow would do, when that is new.
func (d *decider) shadow(p *poolState) {
	policy := p.pool.chosen().shadow
	if policy == nil {
		return
	}
	last := p.pool.Shadow
	if last != nil && last.Position > 0 && d.at.Sub(last.Since) < shadowGap {
		return
	}
	in := d.scalingInputs(p)
	plan := scaling.Decide(policy, &in)
	size := plan.Size(&in)
	if last != nil && last.Position > 0 && last.Size == size {
		return
	}
	in.Idlers = nil
	reason := plan.Reason
	if reason == "" {
		reason = "it would leave the pool as it is"
	}
	d.emit(p.pool.Settings.ID, PoolShadowed{Size: size, Live: in.Live, Decision: Decision{
		Policy: plan.Policy, Version: plan.Version, Outcome: "shadowed", Reason: reason, Inputs: in,
	}})
}

func (p *Pool) evolveShadowed(r Recorded, e PoolShadowed) {
	next := Shadow{From: r.At, At: r.At}
	if p.Shadow != nil {
		next = *p.Shadow
	}
	next.Policy, next.Position, next.Since, next.Size, next.Reason = e.Decision.Policy, r.Position, r.At, e.Size, e.Decision.Reason
	next.Changes++
	p.Shadow = &next
}

// compare adds the time since the last event to the comparison with the shadow.
func (p *Pool) compare(at time.Time, live int, t *tally) {
	if p.Shadow == nil {
		return
	}
	next := *p.Shadow
	if s := at.Sub(next.At).Seconds(); s > 0 {
		next.Would += s * float64(next.Size)
		next.Did += s * float64(next.Live)
		if next.Size*p.Settings.Slots < next.Asked {
			next.Short += s
		}
		if next.Waiting > 0 {
			next.DidShort += s
		}
		next.At = at
	}
	next.Live, next.Asked, next.Waiting = live, t.busy+t.waiting, t.waiting
	p.Shadow = &next
}

// shadowAfter is what is left of the comparison under new settings: all, if they do not touch it.
func (p *Pool) shadowAfter(old domain.Renderer) {
	a, b := old.Scaling, p.Settings.Scaling
	if b.Shadow == nil || !reflect.DeepEqual(a.Shadow, b.Shadow) || !reflect.DeepEqual(a.ScalingPolicy, b.ScalingPolicy) ||
		a.Min != b.Min || a.Max != b.Max || a.Buffer != b.Buffer || a.Idle != b.Idle {
		p.Shadow = nil
	}
}
