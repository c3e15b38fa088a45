package domain

import (
	"encoding/json"
	"time"
)

// LaunchSpec is all that a launcher is told about one resource. It is keyed
// by Resource: launching the same resource again finds what already runs.
type LaunchSpec struct {
	Resource ResourceID
	Renderer Renderer
	Model    ModelKey // for renderers with LoadCommandLine; else empty
}

// Handle is what a launcher needs to find its resource again after a restart
// of rrm: a process ID with its start time, a Slurm job ID. Only the launcher
// that made it can read it. It holds no secret, because it is stored in the log.
type Handle json.RawMessage

// MarshalJSON writes the handle as it is.
func (h Handle) MarshalJSON() ([]byte, error) {
	if len(h) == 0 {
		return []byte("null"), nil
	}
	return h, nil
}

// UnmarshalJSON keeps the handle as it is.
func (h *Handle) UnmarshalJSON(b []byte) error {
	*h = append((*h)[:0], b...)
	return nil
}

// Launched is what a launcher says of a resource that it has started.
type Launched struct {
	Resource ResourceID
	Handle   Handle
	Address  string // host:port of the renderer; empty while it is not known
	Node     string // where it runs, for people
}

// LaunchState is what a launcher sees when it looks.
type LaunchState string

// The states of a launched resource, as its launcher sees it. Unknown is not
// gone: the launcher could not look.
const (
	LaunchPending LaunchState = "pending" // asked for, not running yet (a Slurm job in the queue)
	LaunchRunning LaunchState = "running"
	LaunchGone    LaunchState = "gone"
	LaunchUnknown LaunchState = "unknown"
)

// Observed is one resource as its launcher sees it now.
type Observed struct {
	Launched
	State   LaunchState
	Reason  string    // why it is pending or how it ended: "exit status 3", "Resources: 3 jobs ahead"
	Started time.Time // zero if not known
	Expects time.Time // when its scheduler expects to start it, while it is pending; zero if not known
	Ends    time.Time // when its scheduler will end it; zero if it will not, or that is not known
}
