package domain

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
)

// Overrides are what one session wants different from its renderer's settings.
// A resource that was started with overrides serves only sessions with the same ones.
type Overrides struct {
	Launcher    string            `json:"launcher,omitempty"`
	Arguments   string            `json:"params,omitempty"` // more arguments, behind those of the settings
	Environment map[string]string `json:"environment_variables,omitempty"`
	Nodes       int               `json:"nb_nodes,omitempty"`
	CPUs        int               `json:"nb_cpus,omitempty"`
	GPUs        int               `json:"nb_gpus,omitempty"`
	Memory      int               `json:"memory,omitempty"` // MiB
	Queue       string            `json:"queue,omitempty"`
	Reservation string            `json:"reservation,omitempty"`
	Exclusive   bool              `json:"exclusive,omitempty"`
	Time        Duration          `json:"allocation_time,omitempty"`
	// Identity names, by chance and so telling nothing, the credential to start the
	// resource with, where a launcher has accounts. The credential itself is on no record.
	Identity string `json:"identity,omitempty"`
}

// Key tells overrides apart: the same key, the same overrides. None has the empty key.
func (o *Overrides) Key() string {
	if o == nil {
		return ""
	}
	b, err := json.Marshal(o) // maps are written in order of their keys
	if err != nil {           // plain data
		panic(err)
	}
	if string(b) == "{}" {
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	return fmt.Sprintf("%016x", h.Sum64())
}

// With gives the settings that a resource with overrides is started with.
func (r Renderer) With(o *Overrides) Renderer {
	if o == nil {
		return r
	}
	orKeep := func(v *int, other int) {
		if other > 0 {
			*v = other
		}
	}
	orKeep(&r.Nodes, o.Nodes)
	orKeep(&r.CPUs, o.CPUs)
	orKeep(&r.GPUs, o.GPUs)
	orKeep(&r.Memory, o.Memory)
	if o.Launcher != "" {
		r.Launcher = o.Launcher
	}
	if o.Queue != "" {
		r.Queue = o.Queue
	}
	if o.Reservation != "" {
		r.Reservation = o.Reservation
	}
	if o.Time > 0 {
		r.AllocationTime = o.Time
	}
	r.Exclusive = r.Exclusive || o.Exclusive
	if o.Arguments != "" {
		r.ProcessFormat += " " + o.Arguments
		r.SchedulerFormat += " " + o.Arguments
	}
	if len(o.Environment) > 0 {
		env := maps.Clone(r.Environment)
		if env == nil {
			env = map[string]string{}
		}
		maps.Copy(env, o.Environment)
		r.Environment = env
	}
	return r
}
