package httpapi

import (
	"net"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// RegisterResource answers POST /resources.
func (s *Server) RegisterResource(c echo.Context, _ RegisterResourceParams) error {
	in, err := bodyOf[ResourceRequest](c)
	if err != nil {
		return err
	}
	renderer, err := rendererID(in.Renderer)
	if err != nil {
		return err
	}
	if s.Heartbeats == nil {
		return domain.Forbidden(codeForbidden, "no resource may register itself in this service")
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	address, err := s.CheckAddress(ctx, in.Address)
	if err != nil {
		return err
	}
	if in.Node == "" {
		in.Node, _, _ = net.SplitHostPort(in.Address) // it was just checked
	}
	r, err := s.Commands.RegisterResource(ctx, s.call(c), pool.RegisterResource{
		Renderer: renderer, Address: address, Node: in.Node, Slots: in.Slots, Labels: in.Labels,
	})
	if err != nil {
		return err
	}
	// Until it is enrolled the resource counts as one of which no heartbeat has come yet: should this
	// fail, it is lost by itself, or found again by who repeats the request.
	secret, err := s.Heartbeats.Enrol(ctx, r.ID)
	if err != nil {
		return err
	}
	answer := resourceAnswer(&r)
	answer.HeartbeatSeconds, answer.HeartbeatToken = s.HeartbeatEvery.Seconds(), secret
	c.Response().Header().Set("Location", BasePath+"/resources/"+string(r.ID))
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusCreated, answer)
}

// HeartbeatResource answers POST /resources/{id}/heartbeat.
func (s *Server) HeartbeatResource(c echo.Context, id ResourceID) error {
	in, err := bodyOf[HeartbeatRequest](c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	r, err := s.Views.Resource(ctx, domain.ResourceID(id))
	if err != nil {
		return err
	}
	if r.Launcher != domain.LauncherStatic || s.Heartbeats == nil {
		return domain.Conflict(codeNotStatic, "resource %q was started by the %s launcher", r.ID, r.Launcher)
	}
	if r.State == pool.ResourceStateLost || r.State == pool.ResourceStateFailed {
		return resourceEnded(&r, r.Reason)
	}
	if !r.Ended {
		stop, err := s.Heartbeats.Beat(ctx, r.ID)
		if err != nil {
			return err
		}
		if stop && r.Live() {
			// Its launcher gives it up although nobody wished it to stop: it did not get ready, or hangs.
			if err := s.Heartbeats.Leave(ctx, r.ID); err != nil {
				return err
			}
			return resourceEnded(&r, "its renderer does not answer")
		}
		if in.Draining && r.Live() {
			cmd := pool.DrainResource{Resource: r.ID, Reason: "who runs it asked for it"}
			if r, err = s.Commands.DrainResource(ctx, s.call(c), cmd); err != nil {
				return err
			}
		}
	}
	return c.JSON(http.StatusOK, Heartbeat{
		State: ResourceState(r.State), Reason: r.Reason, HeartbeatSeconds: s.HeartbeatEvery.Seconds(), Users: len(r.Users),
	})
}

func resourceEnded(r *pool.Resource, why string) error {
	state := r.State
	if !r.Ended {
		state = pool.ResourceStateFailed // as it will be in a moment
	}
	return fail(http.StatusGone, codeResourceEnded, "", "the resource is %s: %s", state, why)
}
