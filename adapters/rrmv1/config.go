package rrmv1

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// configuration is a renderer as the predecessor writes it. What it does not
// name takes a default; what only version 2 knows of a renderer stays as it is.
type configuration struct {
	ID              looseText   `json:"id"`
	CommandLine     looseText   `json:"command_line"`
	Environment     environment `json:"environment_variables"`
	Modules         modules     `json:"modules"`
	ProcessFormat   looseText   `json:"process_rest_parameters_format"`
	SchedulerFormat looseText   `json:"scheduler_rest_parameters_format"`
	Project         looseText   `json:"project"`
	Queue           looseText   `json:"queue"`
	Exclusive       looseBool   `json:"exclusive"`
	Nodes           looseInt    `json:"nb_nodes"`
	CPUs            looseInt    `json:"nb_cpus"`
	GPUs            looseInt    `json:"nb_gpus"`
	Memory          looseInt    `json:"memory"`
	GracefulExit    looseBool   `json:"graceful_exit"`
	WaitUntilReady  looseBool   `json:"wait_until_running"`
	Name            looseText   `json:"name"`
	Description     looseText   `json:"description"`
}

// modules are written as text, with commas or white space between; a list is taken too.
type modules []string

// UnmarshalJSON takes text, a list or null.
func (m *modules) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*m = words(text)
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("modules are text, or a list of texts: %w", err)
	}
	*m = list
	return nil
}

// apply puts what the predecessor knows into a renderer's settings.
func (in *configuration) apply(r *domain.Renderer) {
	r.CommandLine, r.Environment, r.Modules = string(in.CommandLine), in.Environment, in.Modules
	r.ProcessFormat, r.SchedulerFormat = string(in.ProcessFormat), string(in.SchedulerFormat)
	r.Project, r.Queue, r.Exclusive = string(in.Project), string(in.Queue), bool(in.Exclusive)
	r.Nodes, r.CPUs, r.GPUs, r.Memory = int(in.Nodes), int(in.CPUs), int(in.GPUs), int(in.Memory)
	r.GracefulExit, r.WaitUntilReady = bool(in.GracefulExit), bool(in.WaitUntilReady)
	r.Name, r.Description = string(in.Name), string(in.Description)
}

// shownConfig is a renderer as the predecessor's clients read it; how it is started is the operator's.
func shownConfig(r *domain.Renderer, whole bool) map[string]any {
	if !whole {
		r = &domain.Renderer{
			ID: r.ID, Name: r.Name, Description: r.Description, Exclusive: r.Exclusive, Nodes: r.Nodes, CPUs: r.CPUs,
			GPUs: r.GPUs, Memory: r.Memory, GracefulExit: r.GracefulExit, WaitUntilReady: r.WaitUntilReady,
		}
	}
	return map[string]any{
		"id": r.ID, "command_line": r.CommandLine, "environment_variables": environment(r.Environment).String(),
		"modules": strings.Join(r.Modules, ","), "process_rest_parameters_format": r.ProcessFormat,
		"scheduler_rest_parameters_format": r.SchedulerFormat, "project": r.Project, "queue": r.Queue, "exclusive": r.Exclusive,
		"nb_nodes": r.Nodes, "nb_cpus": r.CPUs, "nb_gpus": r.GPUs, "memory": r.Memory, "graceful_exit": r.GracefulExit,
		"wait_until_running": r.WaitUntilReady, "name": r.Name, "description": r.Description,
	}
}

// configBody reads a configuration with the predecessor's defaults, for an operator.
func (s *Server) configBody(c *call) (configuration, domain.RendererID, error) {
	in := configuration{CPUs: 1, GracefulExit: true, WaitUntilReady: true}
	if err := s.identify(c); err != nil {
		return in, "", err
	}
	if !c.who.operates() {
		return in, "", errOperates
	}
	if err := c.body(&in); err != nil {
		return in, "", err
	}
	if in.ID == "" {
		return in, "", fail(http.StatusBadRequest, "'id' is missing")
	}
	id, err := domain.ParseRendererID(string(in.ID))
	return in, id, err
}

// createConfig answers POST /config/.
func (s *Server) createConfig(c *call) error {
	in, id, err := s.configBody(c)
	if err != nil {
		return err
	}
	r := domain.Renderer{ID: id, Launcher: s.Launcher, ModelLoading: domain.LoadNone, Slots: 1, ModelsPerResource: 1, Scaling: domain.DefaultScaling(), Sessions: domain.DefaultSessions(), Job: domain.JobSettings{Spread: domain.DefaultSpread}}
	in.apply(&r)
	if err := s.configure(c, pool.ConfigureRenderer{Renderer: r, Create: true}); err != nil {
		return err
	}
	return answer(c.w, http.StatusCreated, say("Rendering Resource %s successfully configured", id))
}

// updateConfig answers PUT /config/.
func (s *Server) updateConfig(c *call) error {
	in, id, err := s.configBody(c)
	if err != nil {
		return err
	}
	ctx, cancel := c.bounded()
	defer cancel()
	r, err := s.settings(ctx, id)
	if err != nil {
		return err
	}
	in.apply(&r)
	if err := s.configure(c, pool.ConfigureRenderer{Renderer: r}); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, say("Rendering Resource %s successfully configured", id))
}

func (s *Server) configure(c *call, cmd pool.ConfigureRenderer) error {
	ctx, cancel := c.bounded()
	defer cancel()
	_, err := s.Commands.ConfigureRenderer(ctx, c.who.call(), cmd)
	return err
}

// listConfigs answers GET /config/: an array, not wrapped in anything.
func (s *Server) listConfigs(c *call) error {
	if err := s.identify(c); err != nil {
		return err
	}
	ctx, cancel := c.bounded()
	defer cancel()
	pools, err := s.Views.Pools(ctx)
	if err != nil {
		return err
	}
	all := make([]map[string]any, len(pools))
	for i := range pools {
		all[i] = shownConfig(&pools[i].Settings, c.who.operates() || c.who.reads())
	}
	return answer(c.w, http.StatusOK, all)
}

// deleteConfig answers DELETE /config/, whose body names the configuration.
func (s *Server) deleteConfig(c *call) error {
	_, id, err := s.configBody(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), requestTimeout)
	defer cancel()
	if err := s.Commands.RemoveRenderer(ctx, c.who.call(), pool.RemoveRenderer{Renderer: id}); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, say("Settings successfully deleted"))
}
