package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/projections"
)

func decisionAnswer(v *projections.DecisionView) (DecisionRecord, error) {
	d := &v.Decision
	out := DecisionRecord{
		Position: v.Position, At: v.At.UTC(), Type: v.Type, Stream: string(v.Stream), Actor: string(v.Actor), Command: string(v.Command),
		Subjects: nonNil(v.Subjects), Event: v.Event,
		Decision: Decision{
			Policy: d.Policy, Version: d.Version, Outcome: d.Outcome, Reason: d.Reason, Considered: d.Considered,
			Candidates: each(d.Candidates, candidateAnswer), Filtered: d.Filtered, Costs: d.Costs,
		},
	}
	if d.Inputs != nil {
		inputs, err := json.Marshal(d.Inputs)
		if err != nil {
			return out, fmt.Errorf("write the inputs of decision %d: %w", v.Position, err)
		}
		out.Decision.Inputs = inputs
	}
	return out, nil
}

func candidateAnswer(c *placement.Candidate) Candidate {
	return Candidate{
		Resource: ID(c.Resource), Seconds: c.Seconds, State: CandidateState(c.State), Free: c.Free, Evicts: each(c.Evicts, text[domain.ModelKey]),
	}
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// GetDecision answers GET /decisions/{position}.
func (s *Server) GetDecision(c echo.Context, position int64) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.Views.Decision(ctx, position)
	if r, ok := domain.AsRefusal(err); err == nil && !callerOf(c).seesSubjects(v.Subjects) || ok && r.Kind == domain.KindNotFound {
		err = domain.NotFound("decision", strconv.FormatInt(position, 10)) // the same for both, so that it tells nothing
	}
	if err != nil {
		return err
	}
	out, err := decisionAnswer(&v)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, out)
}
