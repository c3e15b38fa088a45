package rrmv1

import (
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// admin answers PUT /admin/{command}.
func (s *Server) admin(c *call, command string) error {
	switch command {
	case "suspend":
		return s.admit(c, pool.SetAdmission{Reason: "an administrator suspended it"}, "Creation of new session now suspended")
	case "resume":
		return s.admit(c, pool.SetAdmission{Open: true}, "Creation of new session now resumed")
	case "keepalive":
		return s.keepAlive(c)
	}
	return fail(http.StatusUnauthorized, "%s is an invalid command", command)
}

func (s *Server) admit(c *call, cmd pool.SetAdmission, done string) error {
	if err := s.identify(c); err != nil {
		return err
	}
	if !c.who.operates() {
		return errOperates
	}
	ctx, cancel := c.bounded()
	defer cancel()
	if _, err := s.Commands.SetAdmission(ctx, c.who.call(), cmd); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, say("%s", done))
}

func (s *Server) keepAlive(c *call) error {
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.live(ctx, c)
	if err != nil {
		return err
	}
	if c.who.reads() {
		return errReads
	}
	if _, err := s.Commands.RenewLease(ctx, c.who.call(), v.ID, 0); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, say("Session lives on"))
}
