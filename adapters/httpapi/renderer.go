package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// A renderer's settings are answered as domain.Renderer writes itself: its
// names on the wire are the document's, durations as text, so that what was
// read can be written back.

// shown hides from clients how a renderer is started: commands and environments hold what is the operator's.
func (w caller) shown(r domain.Renderer) domain.Renderer {
	if w.role == projections.RoleClient {
		// Addresses of other services, which may hold secrets, are the operator's as well.
		r.Scaling.ScalingPolicy, r.Scaling.Shadow = domain.ScalingPolicy{Policy: r.Scaling.Policy}, nil
		if q := r.Quotas; q != nil { // those of others are theirs
			mine := &domain.QuotaSettings{Quota: q.Quota}
			if own, ok := q.Owners[w.owner]; ok {
				mine.Owners = map[domain.Owner]domain.Quota{w.owner: own}
			}
			r.Quotas = mine
		}
		r.CommandLine, r.Environment, r.ProcessFormat, r.SchedulerFormat, r.Project, r.Queue = "", nil, "", "", "", ""
	}
	return r
}

// ListRenderers answers GET /renderers.
func (s *Server) ListRenderers(c echo.Context) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	pools, err := s.Views.Pools(ctx)
	if err != nil {
		return err
	}
	items := each(pools, func(p *pool.Pool) domain.Renderer { return callerOf(c).shown(p.Settings) })
	return c.JSON(http.StatusOK, map[string]any{"items": items})
}

// GetRenderer answers GET /renderers/{id}.
func (s *Server) GetRenderer(c echo.Context, id RendererID) error {
	name, err := rendererID(id)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	p, err := s.Views.Pool(ctx, name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, callerOf(c).shown(p.Settings))
}

// PutRenderer answers PUT /renderers/{id}.
func (s *Server) PutRenderer(c echo.Context, id RendererID) error {
	in, err := bodyOf[RendererSettings](c)
	if err != nil {
		return err
	}
	name, err := rendererID(id)
	if err != nil {
		return err
	}
	settings, err := settingsOf(name, &in)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	r, err := s.Commands.ConfigureRenderer(ctx, s.call(c), pool.ConfigureRenderer{Renderer: settings})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, r)
}

// DeleteRenderer answers DELETE /renderers/{id}.
func (s *Server) DeleteRenderer(c echo.Context, id RendererID) error {
	name, err := rendererID(id)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	if err := s.Commands.RemoveRenderer(ctx, s.call(c), pool.RemoveRenderer{Renderer: name}); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// settingsOf fills in the defaults that zero values would hide; the others are the domain's to fill.
func settingsOf(id domain.RendererID, in *RendererSettings) (domain.Renderer, error) {
	r := domain.Renderer{
		ID: id, Name: in.Name, Description: in.Description, CommandLine: in.CommandLine,
		ProcessFormat: in.ProcessRestParametersFormat, SchedulerFormat: in.SchedulerRestParametersFormat,
		Project: in.Project, Queue: in.Queue, Exclusive: in.Exclusive, QOS: in.Qos, Reservation: in.Reservation, WorkDir: in.WorkingDirectory,
		Nodes: in.NbNodes, CPUs: or(in.NbCpus, 1), GPUs: in.NbGpus, Memory: in.Memory,
		GracefulExit: or(in.GracefulExit, true), WaitUntilReady: or(in.WaitUntilRunning, true),
		Launcher: string(in.Launcher), Slots: or(in.Slots, 1), ModelsPerResource: or(in.ModelsPerResource, 1),
		MemoryMiB: in.MemoryMib, ModelLoading: string(in.ModelLoading),
		Placement: domain.PlacementSettings{Policy: in.Placement.Policy, Parameters: in.Placement.Parameters},
	}
	if in.ID != "" && !strings.EqualFold(in.ID, string(id)) {
		return r, domain.Invalid("id", "the settings are of %q, the path is of %q", in.ID, id)
	}
	r.Scaling = domain.DefaultScaling()
	r.Scaling.Min, r.Scaling.Max = or(in.Scaling.Min, r.Scaling.Min), or(in.Scaling.Max, r.Scaling.Max)
	r.Scaling.Buffer = or(in.Scaling.Buffer, r.Scaling.Buffer)
	policy, shadow, err := policiesOf(&in.Scaling)
	if err != nil {
		return r, err
	}
	r.Scaling.ScalingPolicy, r.Scaling.Shadow = policy, shadow
	r.Job.MaxAttempts, r.Probe.Failures = or(in.Job.MaxAttempts, 0), or(in.Probe.Failures, 0)
	r.Quotas = quotasOf(&in.Quotas)
	r.Job.Spread = or(in.Job.Spread, domain.DefaultSpread)
	r.Sessions = domain.DefaultSessions()
	r.Sessions.Reserve, r.Sessions.Moves = in.Sessions.Reserve, or(in.Sessions.Moves, r.Sessions.Moves)
	if r.Environment, err = environmentOf(in.EnvironmentVariables); err != nil {
		return r, err
	}
	if r.Modules, err = modulesOf(in.Modules); err != nil {
		return r, err
	}
	if err := durationsOf(in, &r); err != nil {
		return r, err
	}
	return r, nil
}

func quotasOf(in *QuotaSettings) *domain.QuotaSettings {
	out := &domain.QuotaSettings{Quota: domain.Quota{Sessions: in.Sessions, JobsRunning: in.JobsRunning, JobsQueued: in.JobsQueued, Weight: in.Weight}}
	for o, q := range in.Owners {
		if out.Owners == nil {
			out.Owners = map[domain.Owner]domain.Quota{}
		}
		out.Owners[domain.Owner(o)] = domain.Quota{Sessions: q.Sessions, JobsRunning: q.JobsRunning, JobsQueued: q.JobsQueued, Weight: q.Weight}
	}
	return out
}

// policiesOf reads the policies of scaling. Their fields have the domain's names, and its list of parameters checks them.
func policiesOf(in *ScalingSettings) (policy domain.ScalingPolicy, shadow *domain.ScalingPolicy, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return policy, nil, fmt.Errorf("encode scaling settings: %w", err)
	}
	out := struct {
		domain.ScalingPolicy
		Shadow *domain.ScalingPolicy `json:"shadow"`
	}{}
	if err := json.Unmarshal(b, &out); err != nil {
		return policy, nil, domain.Invalid("scaling.parameters", "the policy of scaling cannot be read: %v", err)
	}
	return out.ScalingPolicy, out.Shadow, nil
}

func durationsOf(in *RendererSettings, r *domain.Renderer) error {
	for _, d := range []struct {
		field string
		text  Duration
		into  *domain.Duration
		zero  bool // 0 is a value of its own
	}{
		{"allocation_time", in.AllocationTime, &r.AllocationTime, true},
		{"scaling.idle", in.Scaling.Idle, &r.Scaling.Idle, true}, {"job.timeout", in.Job.Timeout, &r.Job.Timeout, false},
		{"sessions.settled", in.Sessions.Settled, &r.Sessions.Settled, true},
		{"probe.start_timeout", in.Probe.StartTimeout, &r.Probe.StartTimeout, false},
		{"probe.load_timeout", in.Probe.LoadTimeout, &r.Probe.LoadTimeout, false},
		{"probe.interval", in.Probe.Interval, &r.Probe.Interval, false}, {"probe.timeout", in.Probe.Timeout, &r.Probe.Timeout, false},
	} {
		if d.text == "" {
			continue
		}
		var v time.Duration
		if err := lastings(duration{d.field, d.text, &v}); err != nil {
			return err
		}
		if v == 0 && !d.zero {
			return domain.Invalid(d.field, "%s is more than 0", d.field)
		}
		*d.into = domain.Duration(v)
	}
	return nil
}

func or[T any](given *T, other T) T {
	if given != nil {
		return *given
	}
	return other
}

// words splits the predecessor's lists: commas or white space between, or both.
func words(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || unicode.IsSpace(c) })
}

// environmentOf reads an object, or the predecessor's text "A=1,B=2".
func environmentOf(in RendererSettings_EnvironmentVariables) (map[string]string, error) {
	if len(in.union) == 0 {
		return nil, nil
	}
	var list string
	if json.Unmarshal(in.union, &list) != nil {
		out, err := in.AsStringMap()
		if err != nil {
			return nil, fmt.Errorf("read environment_variables: %w", err)
		}
		return out, nil
	}
	out := map[string]string{}
	for _, word := range words(list) {
		name, value, ok := strings.Cut(word, "=")
		if _, twice := out[name]; !ok || twice {
			return nil, domain.Invalid("environment_variables", "%q is not like NAME=VALUE, or its name is there twice", word)
		}
		out[name] = value
	}
	return out, nil
}

// modulesOf reads a list, or the predecessor's text.
func modulesOf(in RendererSettings_Modules) ([]string, error) {
	if len(in.union) == 0 {
		return nil, nil
	}
	var list string
	if json.Unmarshal(in.union, &list) == nil {
		return words(list), nil
	}
	out, err := in.AsStringList()
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	return out, nil
}
