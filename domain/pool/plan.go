package pool

import (
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// ScalingPlan is what scaling would do at once.
type ScalingPlan struct {
	Policy  string              `json:"policy"`
	Version int                 `json:"version"`
	Live    int                 `json:"live"` // resources now, coming or ready
	Size    int                 `json:"size"` // and then
	Start   int                 `json:"start"`
	Stop    []domain.ResourceID `json:"stop"`
	Reason  string              `json:"reason"`
	Inputs  scaling.Inputs      `json:"inputs"`
}

// plan checks what is asked; the answer is made by State.Plan.
func (d *decider) plan(c PlanScaling) error {
	p, err := d.pool(c.Renderer)
	if err != nil {
		return err
	}
	if p.Settings.Launcher == domain.LauncherStatic {
		return domain.Conflict("not_scaled", "the machines of %q come and go by themselves", c.Renderer)
	}
	_, err = c.settings(p).Checked()
	return err
}

func (c PlanScaling) settings(p *Pool) domain.Renderer {
	set := p.Settings
	set.Scaling = c.Scaling
	return set
}

// Plan is what scaling would do now with other settings, which were checked. What waits for
// a resource of its own kind (a model for life, overrides) gets one by itself and is not part of it.
func (s *State) Plan(c PlanScaling, g Given) ScalingPlan {
	d := &decider{s: s, id: g.ID, at: g.At.UTC()}
	changed, pool := *s.of(c.Renderer), *s.of(c.Renderer).pool
	pool.Settings, _ = c.settings(&pool).Checked()
	pool.policy = nil
	changed.pool = &pool
	in := d.scalingInputs(&changed)
	plan := scaling.Decide(pool.scaler(), &in)
	in.Idlers = nil
	out := ScalingPlan{Policy: plan.Policy, Version: plan.Version, Live: in.Live, Size: plan.Size(&in),
		Start: plan.Start, Stop: plan.Stop, Reason: plan.Reason, Inputs: in}
	if out.Stop == nil {
		out.Stop = []domain.ResourceID{}
	}
	if out.Reason == "" {
		out.Reason = "nothing is to be started or stopped"
	}
	return out
}
