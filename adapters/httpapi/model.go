package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/projections"
)

func modelAnswer(v *projections.ModelView) Model {
	return Model{
		Renderer: RendererName(v.Renderer), Model: ModelKey(v.Model.Model),
		Warm: each(v.Warm, text[domain.ResourceID]), Loading: each(v.Loading, text[domain.ResourceID]),
		Loads: v.Loads, LoadSeconds: seconds(v.LoadSeconds), Jobs: v.Jobs, JobSeconds: seconds(v.JobSeconds),
		MemoryMib: v.MemoryMiB, Uses: v.Uses, WarmUses: v.WarmUses, LastUsed: v.LastUsed.UTC(),
	}
}

// ListModels answers GET /models.
func (s *Server) ListModels(c echo.Context, p ListModelsParams) error {
	renderer, err := rendererID(p.Renderer)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	items, next, err := s.Views.Models(ctx, renderer, pageOf(p.Limit, p.Cursor))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, ModelList{Items: each(items, modelAnswer), NextCursor: next})
}
