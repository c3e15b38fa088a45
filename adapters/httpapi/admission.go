package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// GetAdmission answers GET /admission.
func (s *Server) GetAdmission(c echo.Context) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.Views.Service(ctx)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Admission{Open: v.Open, Reason: v.Reason})
}

// SetAdmission answers PUT /admission.
func (s *Server) SetAdmission(c echo.Context) error {
	in, err := bodyOf[Admission](c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.Commands.SetAdmission(ctx, s.call(c), pool.SetAdmission{Open: in.Open, Reason: in.Reason})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Admission{Open: v.Open, Reason: v.Reason})
}
