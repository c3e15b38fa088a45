package pool

import (
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// ResourceState is where a resource is in its life.
type ResourceState string

// The life of a resource: requested → starting → ready → (draining →) stopping → stopped; failed and lost end it from anywhere.
const (
	ResourceStateRequested ResourceState = "requested" // wished for; no launcher has been called yet
	ResourceStateStarting  ResourceState = "starting"  // launched, not ready yet
	ResourceStateReady     ResourceState = "ready"     // takes sessions and jobs
	ResourceStateDraining  ResourceState = "draining"  // lets its work end and takes no more
	ResourceStateStopping  ResourceState = "stopping"  // being stopped
	ResourceStateStopped   ResourceState = "stopped"   // ended as wished
	ResourceStateFailed    ResourceState = "failed"    // never got ready, or hung
	ResourceStateLost      ResourceState = "lost"      // was there and is gone
)

// Loaded is a model on a resource.
type Loaded = placement.Held

// User is a session or a job that holds one of a resource's slots.
type User = placement.User

// The kinds of user.
const (
	UserSession = "session"
	UserJob     = "job"
)

// Resource is one running, starting or stopping renderer process.
type Resource struct {
	origin
	ID            domain.ResourceID `json:"id"`
	Seq           int64             `json:"seq"` // position of its first event
	Renderer      domain.RendererID `json:"renderer"`
	Launcher      string            `json:"launcher"`
	State         ResourceState     `json:"state"`
	StateSince    time.Time         `json:"state_since"`
	Reason        string            `json:"reason,omitempty"`    // why it is in this state
	Output        string            `json:"output,omitempty"`    // the last it wrote before it failed
	Model         domain.ModelKey   `json:"model,omitempty"`     // the model it keeps for life, with command_line loading
	Overrides     *domain.Overrides `json:"overrides,omitempty"` // it was started with, and serves only sessions with the same
	Key           string            `json:"overrides_key,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Slots         int               `json:"slots"`
	MaxModels     int               `json:"models_per_resource"`
	MemoryMiB     int               `json:"memory_mib"`
	Address       string            `json:"address,omitempty"`
	Node          string            `json:"node,omitempty"`
	Handle        domain.Handle     `json:"handle,omitempty"`
	Capabilities  []string          `json:"capabilities,omitempty"`
	JobKinds      []string          `json:"job_kinds,omitempty"`
	RequestedAt   time.Time         `json:"requested_at"`
	ReadyAt       *time.Time        `json:"ready_at,omitempty"`
	EndedAt       *time.Time        `json:"ended_at,omitempty"`
	IdleSince     *time.Time        `json:"idle_since,omitempty"`     // ready and without users since
	PriorFailures int               `json:"prior_failures,omitempty"` // failed starts in a row before it got ready
	Models        []Loaded          `json:"models"`
	Users         []User            `json:"users"`
	Ended         bool              `json:"ended"`

	// Note is what its launcher last said of it while it is coming, an observation: "Resources: 3 jobs ahead".
	// And when its scheduler expects to start it; zero if that is not known.
	Note    string    `json:"-"`
	Expects time.Time `json:"-"`
}

// Coming says that the resource will be ready but is not yet.
func (r *Resource) Coming() bool {
	return r.State == ResourceStateRequested || r.State == ResourceStateStarting
}

// Live says that the resource counts for what the pool can do: coming or ready, not on its way out.
func (r *Resource) Live() bool { return r.Coming() || r.State == ResourceStateReady }

// provenAfter is how long a resource has to be ready before its end says
// nothing about the next start. A renderer that gets ready only to hang or
// crash would else be started again without end.
const provenAfter = time.Minute

// unproven says that the resource is coming, or was not ready for long.
func (r *Resource) unproven(at time.Time) bool {
	return !r.Ended && (r.Coming() || r.ReadyAt != nil && at.Sub(*r.ReadyAt) < provenAfter)
}

// Free is how many more sessions and jobs it takes now.
func (r *Resource) Free() int {
	if r.State != ResourceStateReady {
		return 0
	}
	return max(0, r.Slots-len(r.Users))
}

// Holds finds a model on the resource, or nil.
func (r *Resource) Holds(m domain.ModelKey) *Loaded {
	for i := range r.Models {
		if r.Models[i].Model == m {
			return &r.Models[i]
		}
	}
	return nil
}

// clone copies the resource deep enough to be changed.
func (r *Resource) clone() *Resource {
	c := *r
	c.Models, c.Users = slices.Clone(r.Models), slices.Clone(r.Users)
	return &c
}

func (r *Resource) addUser(u User) {
	r.Users = append(r.Users, u)
	r.IdleSince = nil
	if h := r.Holds(u.Model); h != nil {
		h.Users++
		h.LastUsed = u.Since
	}
}

// dropUser frees the slot of a session or job, and gives what it was; absent is fine.
func (r *Resource) dropUser(kind, id string, at time.Time) (left User) {
	i := slices.IndexFunc(r.Users, func(u User) bool { return u.Kind == kind && u.ID == id })
	if i < 0 {
		return left
	}
	left = r.Users[i]
	if h := r.Holds(left.Model); h != nil {
		h.Users--
		h.LastUsed = at
		from := r.Users[i].Since
		if h.Since.After(from) { // it waited for the load
			from = h.Since
		}
		if h.State == placement.Loaded {
			h.Served += max(0, at.Sub(from).Seconds())
		}
	}
	r.Users = slices.Delete(r.Users, i, i+1)
	if len(r.Users) == 0 && r.State == ResourceStateReady {
		r.IdleSince = &at
	}
	return left
}

func (r *Resource) dropModel(m domain.ModelKey) {
	r.Models = slices.DeleteFunc(r.Models, func(h Loaded) bool { return h.Model == m })
}

func (r *Resource) enter(s ResourceState, at time.Time, reason string) {
	r.State, r.StateSince, r.Reason = s, at, reason
	switch s {
	case ResourceStateStopped, ResourceStateFailed, ResourceStateLost:
		r.Ended, r.EndedAt, r.Models, r.Users = true, &at, nil, nil
	}
	if s != ResourceStateReady {
		r.IdleSince = nil
	}
}
