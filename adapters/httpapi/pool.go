package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

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

// GetPool answers GET /pools/{renderer}.
func (s *Server) GetPool(c echo.Context, renderer RendererName) error {
	id, err := rendererID(renderer)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.Views.Pool(ctx, id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, poolAnswer(&v))
}
