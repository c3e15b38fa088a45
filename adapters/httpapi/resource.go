package httpapi

import (
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

func resourceAnswer(r *pool.Resource) Resource {
	return Resource{
		ID: ID(r.ID), Renderer: RendererName(r.Renderer), Launcher: r.Launcher, State: ResourceState(r.State), StateSince: r.StateSince.UTC(),
		Reason: r.Reason, Note: r.Note, StartsAt: timeOf(&r.Expects), Output: r.Output, Model: ModelKey(r.Model), Slots: r.Slots, SlotsFree: r.Free(),
		ModelsPerResource: r.MaxModels, MemoryMib: r.MemoryMiB, Address: r.Address, Node: r.Node, Labels: r.Labels,
		Capabilities: r.Capabilities, JobKinds: r.JobKinds,
		RequestedAt: r.RequestedAt.UTC(), ReadyAt: timeOf(r.ReadyAt), EndedAt: timeOf(r.EndedAt), IdleSince: timeOf(r.IdleSince),
		Models: each(r.Models, loadedAnswer), Users: each(r.Users, userAnswer),
	}
}

func loadedAnswer(m *placement.Held) LoadedModel {
	return LoadedModel{
		Model: ModelKey(m.Model), State: LoadedModelState(m.State), Since: m.Since.UTC(), LastUsed: m.LastUsed.UTC(),
		LoadSeconds: seconds(m.LoadSeconds), MemoryMib: m.MemoryMiB, Users: m.Users,
	}
}

func userAnswer(u *pool.User) ResourceUser {
	return ResourceUser{Kind: ResourceUserKind(u.Kind), ID: u.ID, Model: ModelKey(u.Model), Since: u.Since.UTC()}
}

// ListResources answers GET /resources.
func (s *Server) ListResources(c echo.Context, p ListResourcesParams) error {
	renderer, err := rendererID(p.Renderer)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	items, next, err := s.Views.Resources(ctx, projections.ResourceFilter{
		Renderer: string(renderer), State: string(p.State), Model: p.Model, Ended: p.Ended,
	}, pageOf(p.Limit, p.Cursor))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, ResourceList{Items: each(items, resourceAnswer), NextCursor: next})
}

// GetResource answers GET /resources/{id}.
func (s *Server) GetResource(c echo.Context, id ResourceID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	r, err := s.Views.Resource(ctx, domain.ResourceID(id))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, resourceAnswer(&r))
}

// DrainResource answers POST /resources/{id}/drain.
func (s *Server) DrainResource(c echo.Context, id ResourceID, _ DrainResourceParams) error {
	in, err := bodyOf[DrainRequest](c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	r, err := s.Commands.DrainResource(ctx, s.call(c), pool.DrainResource{Resource: domain.ResourceID(id), Reason: in.Reason})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, resourceAnswer(&r))
}

// StopResource answers DELETE /resources/{id}. A resource that stops itself has
// nothing left to say, so that nobody waits for its heartbeats.
func (s *Server) StopResource(c echo.Context, id ResourceID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	cmd := pool.StopResource{Resource: domain.ResourceID(id)}
	self := callerOf(c).role == roleResource
	if self {
		cmd.Reason = "it was deregistered by who runs it"
	}
	r, err := s.Commands.StopResource(ctx, s.call(c), cmd)
	if err != nil {
		return err
	}
	if self {
		if err := s.Heartbeats.Leave(ctx, cmd.Resource); err != nil {
			return err
		}
	}
	return c.JSON(http.StatusOK, resourceAnswer(&r))
}

const defaultTail = 100 // lines, as the document says

// GetResourceLogs answers GET /resources/{id}/logs.
func (s *Server) GetResourceLogs(c echo.Context, id ResourceID, p GetResourceLogsParams) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	r, err := s.Views.Resource(ctx, domain.ResourceID(id))
	if err != nil {
		return err
	}
	if p.Stream == "" {
		p.Stream = GetResourceLogsParamsStreamStdout
	}
	if p.Tail == 0 {
		p.Tail = defaultTail
	}
	if s.Outputs == nil {
		return domain.NotFound("output", id)
	}
	from, err := s.Outputs.Output(ctx, r, string(p.Stream), p.Tail)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	c.Response().Header().Set("Content-Type", "text/plain; charset=utf-8")
	return send(c, from)
}

// send copies with a deadline for each part, so that neither a slow reader nor
// a stalled one keeps what it is sent from.
func send(c echo.Context, from io.Reader) error {
	w := c.Response()
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(stallTimeout)) // a writer without deadlines is a test's
			if _, err := w.Write(buffer[:n]); err != nil {
				return nil // the reader is gone
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			// The status is out already; cutting the connection is how the client learns of it.
			panic(http.ErrAbortHandler)
		}
	}
}
