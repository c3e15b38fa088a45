package catalog

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

var at = time.Date(2026, 3, 2, 14, 3, 0, 250_000_000, time.UTC)

const (
	first  = domain.ResourceID("demo-1-5f0a")
	second = domain.ResourceID("demo-2-91c3")
	sess   = domain.SessionID("0197a1f0-6a8e-7c51-b0a6-53a4c1e0d2aa")
	frames = domain.JobID("0197a1f0-7e11-7d3c-9f3b-2f6d8d1f7b01")
	video  = domain.JobID("0197a1f0-7e52-7a04-8a6b-6c2f5b9d3e02")
)

// examples are one event of each type as the service writes them today, every
// field set. They make the files of testdata for types that have none yet; the
// files, not these, are what the past wrote.
var examples = []pool.Event{
	pool.RendererConfigured{Renderer: renderer()},
	pool.RendererRemoved{},
	pool.AdmissionChanged{Open: true, Reason: "maintenance is over"},
	pool.ResourceRequested{Resource: first, Launcher: "slurm", Slots: 2, MaxModels: 3, MemoryMiB: 8192, Model: "circuit:100", Overrides: &overrides, Labels: map[string]string{"gpu": "a100"}, Reason: "2 wait and 0 slots are coming"},
	pool.ResourceStarting{Resource: first, Handle: domain.Handle(`{"pid":4711,"started":"8812345"}`), Address: "127.0.0.1:43115", Node: "node7"},
	pool.ResourceReady{Resource: first, Address: "127.0.0.1:43115", Node: "n7", Capabilities: []string{"models", "jobs", "image", "stream", "camera"}, JobKinds: []string{"image", "frames"}, Seconds: 0.412},
	pool.ResourceReaddressed{Resource: first, Address: "127.0.0.1:40022", Node: "n8"},
	pool.ResourceDraining{Resource: first, Reason: "node7 is to be updated"},
	pool.ResourceStopping{Resource: first, Reason: "idle for 5m0s and more"},
	pool.ResourceStopped{Resource: first, Reason: "idle for 5m0s and more"},
	pool.ResourceFailed{Resource: first, Code: "exited", Reason: "exit status 3", Output: "cannot open display\nexiting"},
	pool.ResourceLost{Resource: first, Reason: "signal: killed"},
	pool.ModelLoading{Resource: first, Model: "circuit:100", Seconds: 20},
	pool.ModelLoaded{Resource: first, Model: "circuit:100", Seconds: 3.25, MemoryMiB: 412},
	pool.ModelFailed{Resource: first, Model: "circuit:1000000", Code: "model_too_large", Reason: "the model needs 412000 MiB and 8192 MiB are allowed"},
	pool.ModelEvicted{Resource: first, Model: "neuron:1", For: "circuit:100", Decision: decision("evicted", "unused, and cheapest to bring back of what demo-1-5f0a holds")},
	pool.SessionRequested{Home: first, Session: sess, Model: "circuit:100", Owner: "ann", Params: []byte(`{"theme":"dark"}`), WaitSeconds: 120, LeaseSeconds: 60, MaxSeconds: 3600, OnLost: "move", Overrides: &overrides},
	pool.SessionOpened{Session: sess, Owner: "ann", LeaseSeconds: 300},
	pool.SessionQueued{Session: sess, Place: 3, EstimateSeconds: 12.5, LowSeconds: 4, HighSeconds: 40, RawSeconds: 10, Basis: "start", Decision: decision("queued", "resource demo-2-91c3 is starting")},
	pool.SessionStarting{Session: sess, Resource: second},
	pool.SessionAllocated{Session: sess, Resource: first, Model: "circuit:100", Owner: "ann", Warm: true, Waited: 1.5, Saved: 3.25, Decision: decision("allocated", "the model is loaded there")},
	pool.SessionReady{Session: sess, Resource: first, Seconds: 4.75},
	pool.SessionRejected{Session: sess, Model: "circuit:100", Owner: "ann", Code: "no_capacity", Reason: `all 4 slots of "demo" are in use and it may not grow beyond 4 resources`,
		RetryAfterSeconds: 75, Queue: 2, Decision: decision("rejected", "all slots are in use")},
	pool.SessionWarned{Session: sess, Resource: first, Reason: "its time at the scheduler ends", Until: &at},
	pool.SessionReleased{Session: sess, Resource: first, Reason: "the client closed it"},
	pool.SessionExpired{Session: sess, Resource: first, Code: "lease_ended", Reason: "the lease of 1m0s was not renewed"},
	pool.SessionLost{Session: sess, Resource: first, Reason: "resource demo-1-5f0a went away: signal: killed"},
	pool.SessionMoved{Session: sess, Resource: first, Reason: "resource demo-1-5f0a went away: signal: killed"},
	pool.SessionFailed{Session: sess, Resource: first, Code: "model_not_found", Reason: `there is no model "circuit:x"`},
	pool.JobSubmitted{Job: video, Model: "circuit:100", Kind: "video", Spec: []byte(`{"codec":"mp4","frames":240}`), Owner: "ann", Priority: 5, Deadline: &at, After: []domain.JobID{frames},
		MaxAttempts: 3, TimeoutSeconds: 1800, CallbackURL: "https://example.org/done", Pending: []domain.JobID{frames}, Frames: 240, PartOf: frames, First: 1, Last: 120, Warning: "it is expected to end 2m0s after its deadline: it waits for about 0s and takes about 5m0s, loading included"},
	pool.JobRejected{Job: video, Model: "circuit:100", Owner: "ann", Code: "quota_exceeded", Reason: "ann has 100 jobs queued of 100", RetryAfterSeconds: 12, Queue: 240, Decision: decision("rejected", "ann has 100 jobs queued of 100")},
	pool.JobUnblocked{Job: video, By: frames},
	pool.JobSpread{Job: frames, Parts: []pool.Part{{Job: frames + ".p1", First: 1, Last: 120}, {Job: frames + ".p2", First: 121, Last: 240}}, Decision: decision("spread", "240 frames end sooner in 2 parts")},
	pool.JobQueued{Home: first, Job: video, Place: 3, EstimateSeconds: 12.5, LowSeconds: 4, HighSeconds: 40, RawSeconds: 10, Basis: "turn", Warning: "it is expected to end 2m0s after its deadline: it waits for about 12s and takes about 5m0s, loading included"},
	pool.JobLate{Job: video, Reason: "it takes about 5m0s and its deadline is in 4m0s: it can no longer make it"},
	pool.JobAssigned{Job: video, Resource: first, Model: "circuit:100", Owner: "ann", Warm: true, Attempt: 1, Waited: 2.5, Saved: 3.25, Decision: decision("assigned", "the model is loaded there")},
	pool.JobStarted{Job: video, Resource: first},
	pool.JobSucceeded{Job: video, Resource: first, ContentType: "video/mp4", Bytes: 1 << 20, Seconds: 21.75},
	pool.JobRetried{Job: video, Resource: first, Class: pool.ClassTransient, Code: "resource_lost", Reason: "resource demo-1-5f0a went away: signal: killed", NotBefore: at.Add(2 * time.Second)},
	pool.JobYielding{Job: frames, Resource: first, For: sess, Decision: decision("yielding", "a session waits and no slot is free")},
	pool.JobMoved{Job: frames, Resource: first, First: 25, Frames: 12, Seconds: 0.75, Reason: "made room for a session"},
	pool.JobFailed{Job: video, Resource: first, Class: pool.ClassPermanent, Code: "video_unavailable", Reason: "ffmpeg is not installed"},
	pool.JobCancelled{Job: video, Resource: first, Reason: "not needed any more"},
	pool.PoolScaled{From: 1, To: 3, Stop: []domain.ResourceID{second}, Decision: scaled()},
	pool.PoolAdvised{URL: "https://hooks.example.org/size", Size: 3, Reason: "a class begins", Problem: "503 Service Unavailable"},
	pool.PoolShadowed{Size: 2, Live: 3, Decision: scaled()},
	pool.PoolBackedOff{Failures: 3, Until: at.Add(4 * time.Second), Reason: "exit status 3"},
}

func renderer() domain.Renderer {
	r, err := domain.Renderer{
		ID: "demo", Name: "Demonstration", Description: "The reference renderer", CommandLine: "rrm-renderer --listen ${rest_hostname}:${rest_port}",
		Environment: map[string]string{"LANG": "C"}, Modules: []string{"BBP/viz"}, ProcessFormat: "--listen ${rest_hostname}:${rest_port}",
		SchedulerFormat: "--listen 0.0.0.0:${rest_port}", Project: "proj3", Queue: "interactive", QOS: "high", Reservation: "demo-day", AllocationTime: domain.Duration(time.Hour), WorkDir: "/data/viz",
		Exclusive: true, Nodes: 1, CPUs: 8, GPUs: 1, Memory: 16384,
		GracefulExit: true, WaitUntilReady: true, Launcher: domain.LauncherSlurm, Slots: 2, ModelsPerResource: 3, MemoryMiB: 8192, ModelLoading: domain.LoadHTTP,
		Job:      domain.JobSettings{Spread: 8},
		Sessions: domain.SessionSettings{Reserve: 1, Moves: 2, Settled: domain.Duration(5 * time.Second)},
		Quotas:   &domain.QuotaSettings{Quota: quota(4, 8, 100), Owners: map[domain.Owner]domain.Quota{"ann": quota(8, 16, 1000)}},
		Scaling: domain.ScalingSettings{Min: 1, Max: 4, Buffer: 1, Idle: domain.Duration(5 * time.Minute),
			ScalingPolicy: domain.ScalingPolicy{Policy: "chain", Chain: []domain.ScalingPolicy{
				{Policy: "schedule", Schedule: []domain.ScheduleEntry{
					{Days: []string{"mon", "tue"}, From: "08:00", To: "18:00", Zone: "Europe/Zurich", Min: number(2), Max: number(8)},
					{From: "22:00", To: "06:00", Target: number(0)},
				}},
				{Policy: "buffer", Parameters: domain.Parameters{"size": "20%"}},
			}},
			Shadow: &domain.ScalingPolicy{Policy: "forecast", Parameters: domain.Parameters{"risk": "0.1"}}},
		Placement: domain.PlacementSettings{Policy: "ttff", Parameters: map[string]float64{"patience": 20}},
	}.Checked()
	if err != nil {
		panic(err)
	}
	// Settings have either of these, but an example has all.
	r.Scaling.Parameters, r.Scaling.Schedule = domain.Parameters{"up_per_minute": "2"}, r.Scaling.Chain[0].Schedule
	return r
}

func quota(sessions, running, queued int) domain.Quota {
	return domain.Quota{Sessions: &sessions, JobsRunning: &running, JobsQueued: &queued}
}

// overrides are what a session of the predecessor's clients may ask for.
var overrides = domain.Overrides{
	Launcher: "local", Arguments: "--volume circuit:100", Environment: map[string]string{"THEME": "dark"},
	Nodes: 2, CPUs: 8, GPUs: 1, Memory: 4096, Queue: "test", Reservation: "demo-day", Exclusive: true, Time: domain.Duration(time.Hour),
}

func decision(outcome, reason string) pool.Decision {
	return pool.Decision{
		Policy: "expected", Version: 1, Outcome: outcome, Reason: reason, Considered: 2,
		Candidates: []placement.Candidate{
			{Resource: first, Seconds: 0, State: placement.Warm, Free: 1},
			{Resource: second, Seconds: 24.5, State: placement.Cold, Free: 2, Evicts: []domain.ModelKey{"neuron:1"}},
		},
		Filtered: map[string]int{placement.NoFreeSlot: 1}, Costs: map[string]float64{"load_seconds": 3.25}, Inputs: map[string]any{"waiting": 2.0},
	}
}

func scaled() pool.Decision {
	return pool.Decision{Policy: "demand", Version: 1, Outcome: "scaled", Reason: "2 wait and 0 slots are coming", Considered: 1,
		Candidates: []placement.Candidate{{Resource: first, State: placement.Warm}}, Filtered: map[string]int{placement.NoFreeSlot: 1},
		Costs: map[string]float64{"start_seconds": 0.4}, Inputs: scaling.Inputs{Max: 4, Slots: 2, Live: 1, Occupied: 1, Waiting: 2}}
}

func number(n int) *int { return &n }
