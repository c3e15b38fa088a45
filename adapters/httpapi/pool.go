package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

func poolAnswer(v *projections.PoolView) Pool {
	sizes := map[string]int{}
	for state, n := range v.Sizes {
		sizes[string(state)] = n
	}
	out := Pool{
		Renderer: RendererName(v.Settings.ID), Sizes: sizes,
		Min: v.Settings.Scaling.Min, Max: v.Settings.Scaling.Max, Buffer: v.Settings.Scaling.Buffer,
		SlotsTotal: v.SlotsTotal, SlotsFree: v.SlotsFree,
		QueuedSessions: v.QueuedSessions, QueuedJobs: v.QueuedJobs, WaitingJobs: v.WaitingJobs, RunningJobs: v.RunningJobs,
		OldestWaitSeconds: seconds(v.OldestWaitSeconds),
		Learned: Learned{
			Starts: v.Starts, StartSeconds: seconds(v.StartSeconds), Loads: v.Loads, LoadSeconds: seconds(v.LoadSeconds),
			Holds: v.Holds, HoldSeconds: seconds(v.HoldSeconds), Jobs: v.Jobs, JobSeconds: seconds(v.JobSeconds),
		},
		Expectations: expectationsOf(&v.Expectations),
		Failures:     v.Failures, BackoffUntil: timeOf(v.BackoffUntil), LastFailure: v.LastFailure,
	}
	if l := v.LastScaling; l != nil {
		out.LastScaling = Scaling{At: l.At.UTC(), From: l.From, To: l.To, Reason: l.Reason, Decision: decisionRef(l.Position)}
	}
	out.Policy = cmp.Or(v.Settings.Scaling.Policy, domain.ScalingDemand)
	for _, a := range v.Advice {
		host := ""
		if u, err := url.Parse(a.URL); err == nil {
			host = u.Host // the rest may hold a secret
		}
		out.Advice = append(out.Advice, ScalingAdvice{Host: host, At: a.At.UTC(), Size: a.Size, Reason: a.Reason, Problem: a.Problem})
	}
	if s := v.Shadow; s != nil && s.Position > 0 {
		out.Shadow = ScalingShadow{
			Policy: s.Policy, Size: s.Size, Since: s.Since.UTC(), Reason: s.Reason, Changes: s.Changes, From: s.From.UTC(), Until: s.At.UTC(),
			WouldResourceSeconds: seconds(s.Would), DidResourceSeconds: seconds(s.Did),
			WouldShortSeconds: seconds(s.Short), DidShortSeconds: seconds(s.DidShort), Decision: decisionRef(s.Position),
		}
	}
	return out
}

func expectationsOf(c *pool.Calibration) Expectations {
	one := func(c pool.Calibrated) Calibrated {
		if c.Waits == 0 {
			return Calibrated{}
		}
		return Calibrated{Waits: c.Waits, Within: c.Within, Share: float64(c.Within) / float64(c.Waits), Recent: c.Recent}
	}
	return Expectations{Confidence: pool.Confidence, SessionStart: one(c.SessionStart), SessionTurn: one(c.SessionTurn),
		JobStart: one(c.JobStart), JobTurn: one(c.JobTurn)}
}

// poolOf finds a renderer's pool.
func (s *Server) poolOf(ctx context.Context, renderer RendererName) (projections.PoolView, error) {
	id, err := rendererID(renderer)
	if err != nil {
		return projections.PoolView{}, err
	}
	return s.Views.Pool(ctx, id)
}

// GetPool answers GET /pools/{renderer}.
func (s *Server) GetPool(c echo.Context, renderer RendererName) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.poolOf(ctx, renderer)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, poolAnswer(&v))
}

// PlanScaling answers POST /pools/{renderer}/scaling/plan.
func (s *Server) PlanScaling(c echo.Context, renderer RendererName) error {
	in, err := bodyOf[ScalingSettings](c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.poolOf(ctx, renderer)
	if err != nil {
		return err
	}
	set, err := tried(v.Settings.Scaling, &in)
	if err != nil {
		return err
	}
	p, err := s.Commands.PlanScaling(ctx, s.call(c), pool.PlanScaling{Renderer: v.Settings.ID, Scaling: set})
	if err != nil {
		return err
	}
	inputs, err := json.Marshal(p.Inputs)
	if err != nil {
		return fmt.Errorf("encode inputs: %w", err)
	}
	out := ScalingPlan{Policy: p.Policy, Live: p.Live, Size: p.Size, Start: p.Start, Reason: p.Reason, Inputs: inputs, Stop: []ID{}}
	for _, r := range p.Stop {
		out.Stop = append(out.Stop, ID(r))
	}
	return c.JSON(http.StatusOK, out)
}

// tried are settings with what a request would change of them.
func tried(set domain.ScalingSettings, in *ScalingSettings) (domain.ScalingSettings, error) {
	set.Min, set.Max, set.Buffer = or(in.Min, set.Min), or(in.Max, set.Max), or(in.Buffer, set.Buffer)
	idle := set.Idle.Std()
	if in.Idle != "" {
		if err := lastings(duration{"idle", in.Idle, &idle}); err != nil {
			return set, err
		}
	}
	set.Idle = domain.Duration(idle)
	policy, shadow, err := policiesOf(in)
	if err != nil {
		return set, err
	}
	if in.Policy == "" && len(in.Parameters) > 0 {
		policy.Policy = set.Policy // the same policy, told otherwise
	}
	if policy.Policy != "" {
		set.ScalingPolicy = policy
	}
	if shadow != nil {
		set.Shadow = shadow
	}
	return set, nil
}
