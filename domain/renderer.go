package domain

// Renderer is a kind of rendering software and how to start it: the settings
// of one pool. The fields up to WaitUntilRunning are the predecessor's
// configuration, with its names on the wire.
type Renderer struct {
	ID              RendererID        `json:"id"`
	Name            string            `json:"name,omitempty"`
	Description     string            `json:"description,omitempty"`
	CommandLine     string            `json:"command_line"`
	Environment     map[string]string `json:"environment_variables,omitempty"`
	Modules         []string          `json:"modules,omitempty"`
	ProcessFormat   string            `json:"process_rest_parameters_format,omitempty"`   // arguments for a local process, with placeholders
	SchedulerFormat string            `json:"scheduler_rest_parameters_format,omitempty"` // the same for a scheduled one
	Project         string            `json:"project,omitempty"`
	Queue           string            `json:"queue,omitempty"`
	QOS             string            `json:"qos,omitempty"`         // quality of service
	Reservation     string            `json:"reservation,omitempty"` // nodes that an administrator set aside
	Exclusive       bool              `json:"exclusive,omitempty"`
	Nodes           int               `json:"nb_nodes,omitempty"`
	CPUs            int               `json:"nb_cpus,omitempty"`
	GPUs            int               `json:"nb_gpus,omitempty"`
	Memory          int               `json:"memory,omitempty"`            // MiB that the scheduler is asked for
	AllocationTime  Duration          `json:"allocation_time,omitempty"`   // after which the scheduler ends a resource; 0: its own default
	WorkDir         string            `json:"working_directory,omitempty"` // where the program starts; empty: the launcher's choice
	GracefulExit    bool              `json:"graceful_exit"`
	WaitUntilReady  bool              `json:"wait_until_running"`

	Launcher          string            `json:"launcher"`            // local, slurm, unicore, static
	Slots             int               `json:"slots"`               // sessions and jobs that one resource serves at once
	ModelsPerResource int               `json:"models_per_resource"` // how many models one resource holds
	MemoryMiB         int               `json:"memory_mib"`          // for models on one resource; 0: no limit known
	ModelLoading      string            `json:"model_loading"`       // http, command_line, none
	Scaling           ScalingSettings   `json:"scaling"`
	Placement         PlacementSettings `json:"placement"`
	Job               JobSettings       `json:"job"`
	Probe             ProbeSettings     `json:"probe"`
	Sessions          SessionSettings   `json:"sessions,omitzero"`
	Quotas            *QuotaSettings    `json:"quotas,omitempty"` // per owner; nil: none
}

// SessionSettings say what sessions have before jobs, beyond going first.
type SessionSettings struct {
	Reserve int      `json:"reserve"` // free slots that jobs leave to sessions
	Moves   int      `json:"moves"`   // how often one job may be moved to make room for a session; 0: never
	Settled Duration `json:"settled"` // how long a job must have run before it is moved
}

// JobSettings are what a job gets that does not say otherwise.
type JobSettings struct {
	MaxAttempts int      `json:"max_attempts"`
	Timeout     Duration `json:"timeout"`          // of one attempt, loading excluded
	Spread      int      `json:"spread,omitempty"` // parts of a set of frames that are rendered at once, at most; 0 and 1: whole
}

// ProbeSettings say how the renderer's health is watched.
type ProbeSettings struct {
	StartTimeout Duration `json:"start_timeout"` // from the launch to the first 200 of /registry
	LoadTimeout  Duration `json:"load_timeout"`  // of one model
	Interval     Duration `json:"interval"`      // between two probes of a ready resource
	Timeout      Duration `json:"timeout"`       // of one probe
	Failures     int      `json:"failures"`      // in a row, until the resource counts as hung
}

// Names of the launchers and of the ways to load a model.
const (
	LauncherLocal   = "local"
	LauncherSlurm   = "slurm"
	LauncherUnicore = "unicore"
	LauncherStatic  = "static"

	LoadHTTP        = "http"
	LoadCommandLine = "command_line"
	LoadNone        = "none"
)
