package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

func sessionURL(id domain.SessionID) string { return BasePath + "/sessions/" + string(id) }

func sessionAnswer(v *projections.SessionView) Session {
	e := &v.Session
	return Session{
		ID: ID(e.ID), Renderer: RendererName(e.Renderer), Model: ModelKey(e.Model), Owner: Owner(e.Owner), Params: e.Params,
		State: SessionState(e.State), StateSince: e.StateSince.UTC(), Code: e.Code, Reason: e.Reason,
		Resource: ID(e.Resource), Node: v.Node, Warm: e.Warm, Moves: e.Moves, Warning: e.Warning, GoesAt: timeOf(e.GoesAt),
		URL: sessionURL(e.ID) + "/renderer/", EventsURL: sessionURL(e.ID) + "/events",
		RequestedAt: e.RequestedAt.UTC(), WaitUntil: timeOf(e.WaitUntil), AllocatedAt: timeOf(e.AllocatedAt),
		ReadyAt: timeOf(e.ReadyAt), EndedAt: timeOf(e.EndedAt),
		LeaseSeconds: seconds(e.LeaseSeconds), LeaseExpiresAt: timeOf(v.LeaseExpiresAt), MaxDurationSeconds: seconds(e.MaxSeconds),
		OnLost: SessionOnLost(e.OnLost), Queue: placeOf(v.Queue), Decision: decisionRef(e.Decision),
	}
}

// BookResource answers POST /sessions.
func (s *Server) BookResource(c echo.Context, _ BookResourceParams) error {
	cmd, err := booking(c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	b, err := s.Commands.BookResource(ctx, s.call(c), cmd)
	if err != nil {
		return err
	}
	v := projections.SessionView{Session: b.Session, Queue: b.Queue}
	if !b.Session.Waiting() {
		// Where it runs and until when is not the command's to know. The booking
		// stands whether or not this can be read.
		if now, err := s.Views.Session(ctx, b.Session.ID); err == nil && now.State == b.Session.State {
			v = now
		}
	}
	out, status := sessionAnswer(&v), http.StatusCreated
	out.Outcome = SessionOutcomeAllocated
	if b.Session.Waiting() {
		out.Outcome, status = SessionOutcomeQueued, http.StatusAccepted
	}
	c.Response().Header().Set("Location", sessionURL(b.Session.ID))
	return c.JSON(status, out)
}

func booking(c echo.Context) (cmd pool.BookResource, err error) {
	in, err := bodyOf[SessionRequest](c)
	if err != nil {
		return cmd, err
	}
	if cmd.Owner, err = callerOf(c).as(in.Owner); err != nil {
		return cmd, err
	}
	if cmd.Renderer, err = rendererID(in.Renderer); err != nil {
		return cmd, err
	}
	if cmd.Params, err = plainJSON(in.Params); err != nil {
		return cmd, err
	}
	cmd.Model, cmd.OnLost = domain.ModelKey(in.Model), string(in.OnLost)
	return cmd, lastings(duration{"wait", in.Wait, &cmd.Wait}, duration{"lease", in.Lease, &cmd.Lease}, duration{"max_duration", in.MaxDuration, &cmd.MaxTime})
}

// ListSessions answers GET /sessions.
func (s *Server) ListSessions(c echo.Context, p ListSessionsParams) error {
	owner, err := callerOf(c).only(p.Owner)
	if err != nil {
		return err
	}
	renderer, err := rendererID(p.Renderer)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	items, next, err := s.Views.Sessions(ctx, projections.SessionFilter{
		Renderer: string(renderer), Model: p.Model, Owner: owner, State: string(p.State), Resource: p.Resource,
	}, pageOf(p.Limit, p.Cursor))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, SessionList{Items: each(items, sessionAnswer), NextCursor: next})
}

// ownSession reads a session that the caller sees; one that it does not see does not exist.
func (s *Server) ownSession(ctx context.Context, who caller, id ID) (projections.SessionView, error) {
	v, err := s.Views.Session(ctx, domain.SessionID(id))
	if err == nil && !who.sees(v.Owner) {
		err = domain.NotFound("session", id)
	}
	return v, err
}

// GetSession answers GET /sessions/{id}.
func (s *Server) GetSession(c echo.Context, id SessionID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.ownSession(ctx, callerOf(c), id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, sessionAnswer(&v))
}

// ReleaseSession answers DELETE /sessions/{id}.
func (s *Server) ReleaseSession(c echo.Context, id SessionID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.ownSession(ctx, callerOf(c), id)
	if err != nil {
		return err
	}
	if v.Session, err = s.Commands.ReleaseSession(ctx, s.call(c), pool.ReleaseSession{Session: v.ID}); err != nil {
		return err
	}
	s.sessions.ended(v.ID)
	v.Queue, v.LeaseExpiresAt = nil, nil
	return c.JSON(http.StatusOK, sessionAnswer(&v))
}

// RenewLease answers PUT /sessions/{id}/lease.
func (s *Server) RenewLease(c echo.Context, id SessionID) error {
	in, err := bodyOf[LeaseRequest](c)
	if err != nil {
		return err
	}
	var lease time.Duration
	if err := lastings(duration{"lease", in.Lease, &lease}); err != nil {
		return err
	}
	if in.Lease != "" && lease < pool.MinLease { // 0 would mean: as before
		return domain.Invalid("lease", "a lease lasts from %s to %s", pool.MinLease, pool.MaxLease)
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.ownSession(ctx, callerOf(c), id)
	if err != nil {
		return err
	}
	expires, err := s.Commands.RenewLease(ctx, s.call(c), v.ID, lease)
	if err != nil {
		return err
	}
	v.LeaseExpiresAt = nil
	if !expires.IsZero() {
		v.LeaseExpiresAt = &expires
		if lease > 0 {
			v.LeaseSeconds = lease.Seconds()
		}
	}
	return c.JSON(http.StatusOK, sessionAnswer(&v))
}
