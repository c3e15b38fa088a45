package domain

// CapabilityRanges is that of a renderer which makes some frames of a set (first_frame and
// last_frame in the spec) and can stop between two of them.
const CapabilityRanges = "frame_ranges"

// Registry is what a renderer says of itself when it is ready (PUT /registry).
type Registry struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"` // models, jobs, image, stream, camera, video
	JobKinds     []string `json:"job_kinds"`
}

// ModelStatus is where a model stands on a renderer.
type ModelStatus struct {
	Model       ModelKey `json:"model"`
	State       string   `json:"state"`    // loading, loaded or failed
	Progress    float64  `json:"progress"` // 0 to 1
	MemoryMiB   float64  `json:"memory_mib"`
	LoadSeconds float64  `json:"load_seconds"`
	Code        string   `json:"code"`
	Reason      string   `json:"reason"`
}

// JobStatus is where a job stands on a renderer.
type JobStatus struct {
	ID          JobID   `json:"id"`
	State       string  `json:"state"`    // running, succeeded, failed, cancelled or stopped
	Progress    float64 `json:"progress"` // 0 to 1
	Code        string  `json:"code"`
	Reason      string  `json:"reason"`
	ContentType string  `json:"content_type"`
	Bytes       int64   `json:"bytes"`
	Frames      int     `json:"frames"` // made so far, of a set of frames
}
