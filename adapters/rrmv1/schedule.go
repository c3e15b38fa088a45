package rrmv1

import (
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// request is what a session may want different from its configuration.
type request struct {
	Params      looseText   `json:"params"`
	Environment environment `json:"environment"`
	Reservation looseText   `json:"reservation"`
	CPUs        looseInt    `json:"nb_cpus"`
	GPUs        looseInt    `json:"nb_gpus"`
	Nodes       looseInt    `json:"nb_nodes"`
	Memory      looseInt    `json:"memory"` // MiB
	Queue       looseText   `json:"queue"`
	Exclusive   looseBool   `json:"exclusive"`
	Time        looseText   `json:"allocation_time"`
}

// schedule answers PUT /session/schedule: it books through the renderer's own launcher.
func (s *Server) schedule(c *call) error {
	b, err := s.book(c, "", http.StatusForbidden)
	if err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, map[string]any{"message": "Job scheduled", "jobId": b})
}

// openProcess answers PUT /session/open: a process on this machine, whatever the renderer's launcher.
func (s *Server) openProcess(c *call) error {
	b, err := s.book(c, domain.LauncherLocal, http.StatusUnauthorized)
	if err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, map[string]any{"message": "Process started", "processId": b})
}

// book books for the request's session and gives a name for what was booked: the
// resource, if there is one already, else the session. again is the status for a session that was booked for before.
func (s *Server) book(c *call, launcher string, again int) (string, error) {
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.live(ctx, c)
	if err != nil {
		return "", err
	}
	if c.who.reads() {
		return "", errReads
	}
	var in request
	if err := c.body(&in); err != nil {
		return "", err
	}
	set, err := s.settings(ctx, v.Renderer)
	if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindNotFound {
		return "", fail(http.StatusNotFound, "there is no configuration %q", v.Renderer)
	} else if err != nil {
		return "", err
	}
	cmd, err := in.booking(&v, &set, launcher)
	if err != nil {
		return "", err
	}
	if set.With(cmd.Overrides).Launcher == domain.LauncherUnicore {
		if cmd.Overrides.Identity, err = s.keepCredential(c, ""); err != nil {
			return "", err
		}
	}
	b, err := s.Commands.ScheduleSession(ctx, c.who.call(), cmd)
	if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindConflict {
		if r.Code == "session_ended" {
			again = http.StatusNotFound
		}
		return "", fail(again, "already started: %s", r.Reason)
	}
	if err != nil {
		return "", err
	}
	if b.Session.Resource != "" {
		return string(b.Session.Resource), nil
	}
	return string(v.ID), nil
}

// keepCredential hands a foreign Authorization on, and gives the name for it; empty if there is none.
func (s *Server) keepCredential(c *call, identity string) (string, error) {
	if s.Credential == nil || c.who.authorization == "" {
		return "", nil
	}
	return s.Credential(c.who.authorization, identity)
}

// booking is the command for a request.
func (in *request) booking(v *projections.SessionView, set *domain.Renderer, launcher string) (pool.ScheduleSession, error) {
	cmd := pool.ScheduleSession{Session: v.ID}
	p, err := parseParams(string(in.Params))
	if err != nil {
		return cmd, err
	}
	if err := in.Environment.check(); err != nil {
		return cmd, err
	}
	lasts, err := allocation(string(in.Time))
	if err != nil {
		return cmd, err
	}
	for _, n := range []looseInt{in.CPUs, in.GPUs, in.Nodes, in.Memory} {
		if n < 0 {
			return cmd, domain.Invalid("nb_nodes", "numbers of nodes, CPUs, GPUs and MiB are not negative")
		}
	}
	arguments := p.all
	if loads(set) {
		arguments = p.rest // the service itself gives the renderer its model, so that one resource can serve several
	}
	if launcher == set.Launcher {
		launcher = "" // nothing different
	}
	cmd.Model = p.model
	cmd.Overrides = &domain.Overrides{
		Launcher: launcher, Arguments: arguments, Environment: in.Environment,
		Nodes: int(in.Nodes), CPUs: int(in.CPUs), GPUs: int(in.GPUs), Memory: int(in.Memory),
		Queue: string(in.Queue), Reservation: string(in.Reservation), Exclusive: bool(in.Exclusive), Time: domain.Duration(lasts),
	}
	return cmd, nil
}
