package pool

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// reserve is how many free slots jobs leave to sessions. Of all that the pool
// has or may start, at least one is left to jobs, which would else wait for ever.
func (p *poolState) reserve() int { return p.pool.reserve(p.resources) }

func (p *Pool) reserve(resources []*Resource) int {
	set := p.Settings
	if set.Sessions.Reserve == 0 || set.ModelLoading == domain.LoadCommandLine {
		return 0 // where resources keep one model for life, a free slot is no use to whoever comes next
	}
	slots := 0
	for _, r := range resources {
		if r.Live() && r.Key == "" {
			slots += r.Slots
		}
	}
	if set.Launcher != domain.LauncherStatic {
		slots += max(0, set.Scaling.Max-len(resources)) * set.Slots
	}
	return max(0, min(set.Sessions.Reserve, slots-1))
}

// forRank is how many free slots those of a rank may be given: jobs leave the pool's reserve to sessions.
func (p *poolState) forRank(rank int) int {
	reserve := 0
	if rank != rankSession {
		reserve = p.reserve()
	}
	if reserve == 0 {
		return math.MaxInt
	}
	free := 0
	for _, o := range p.fleet.Free {
		if o.Key == "" { // the others serve only sessions with the same overrides
			free += o.Free
		}
	}
	return max(0, free-reserve)
}

// The policy that chooses which job makes room, in decisions.
const (
	roomPolicy  = "make-room"
	roomVersion = 1
)

// roomSecondsUnseen is how long a job is expected to take until it has made room before any did.
const roomSecondsUnseen = 2

// makeRoomForSessions asks jobs to move for the sessions that wait and have no
// slot coming sooner: one job for each, which finishes its frame and goes back
// to the queue with what it has made. It is bounded: a job is moved
// so many times at most, and not within so long of its start.
func (d *decider) makeRoomForSessions(id domain.RendererID) {
	p := d.s.of(id)
	if len(p.waiting) == 0 || p.pool.Settings.Sessions.Moves == 0 {
		return
	}
	s := supplyOf(p.resources)
	if s.jobs == 0 {
		return
	}
	sooner := 0 // slots of resources that will be ready before a job has made room
	for _, r := range p.resources {
		if r.Coming() && p.pool.startLeft(r.RequestedAt, d.at) <= p.pool.expectRoom() {
			sooner += r.Slots
		}
	}
	yielding := d.yielding(p)
	for _, e := range slices.Clone(p.waiting[:min(len(p.waiting), lookAhead)]) {
		if yielding > 0 {
			yielding--
			continue
		}
		if sooner > 0 {
			sooner--
			continue
		}
		j, r, others := d.whoMoves(p, e)
		if j == nil {
			continue
		}
		d.emit(id, JobYielding{Job: j.ID, Resource: r.ID, For: e.ID, Decision: Decision{
			Policy: roomPolicy, Version: roomVersion, Outcome: "yielding",
			Reason:     fmt.Sprintf("session %s waits and no slot is free; the job ends its frame and goes on elsewhere", e.ID),
			Considered: others, Costs: map[string]float64{"room_seconds": p.pool.expectRoom()},
		}})
	}
}

// yielding counts the jobs that are making room already.
func (d *decider) yielding(p *poolState) int {
	n := 0
	for _, r := range p.resources {
		for i := range r.Users {
			if j := d.jobOf(&r.Users[i]); j != nil && j.Yielding != nil {
				n++
			}
		}
	}
	return n
}

func (d *decider) jobOf(u *User) *Job {
	if u.Kind != UserJob {
		return nil
	}
	return d.s.jobs[domain.JobID(u.ID)]
}

// mover is a job that could make room for a session.
type mover struct {
	job  *Job
	on   *Resource
	warm bool // for the session
}

// whoMoves chooses the job that makes room for a session, if one can: the
// lowest priority, then where the session finds its model, then the one that began last.
func (d *decider) whoMoves(p *poolState, e *Session) (*Job, *Resource, int) {
	var best *mover
	considered := 0
	for _, r := range p.resources {
		if r.State != ResourceStateReady || r.Key != e.Overrides.Key() || !slices.Contains(r.Capabilities, domain.CapabilityRanges) {
			continue
		}
		for i := range r.Users {
			j := d.jobOf(&r.Users[i])
			if j == nil || !d.movable(p, j) || !d.fitsWithout(r, j, e.Model) {
				continue
			}
			considered++
			h := r.Holds(e.Model)
			m := &mover{j, r, h != nil && h.State == placement.Loaded}
			if best == nil || m.before(best) {
				best = m
			}
		}
	}
	if best == nil {
		return nil, nil, 0
	}
	return best.job, best.on, considered
}

func (m *mover) before(o *mover) bool {
	if c := cmp.Compare(m.job.Priority, o.job.Priority); c != 0 {
		return c < 0
	}
	if m.warm != o.warm {
		return m.warm
	}
	return cmp.Or(o.job.StartedAt.Compare(*m.job.StartedAt), cmp.Compare(o.job.Seq, m.job.Seq)) < 0
}

// movable says that a job can go on elsewhere from where it is, and may be made to.
func (d *decider) movable(p *poolState, j *Job) bool {
	set := p.pool.Settings.Sessions
	return j.Kind == JobFrames && j.State == JobStateRunning && j.Yielding == nil && j.Moves < set.Moves &&
		d.at.Sub(*j.StartedAt) >= set.Settled.Std()
}

// fitsWithout says whether a resource has room for a model once a job has left it.
func (d *decider) fitsWithout(r *Resource, j *Job, m domain.ModelKey) bool {
	if r.Model != "" {
		return r.Model == m
	}
	if r.Holds(m) != nil {
		return true
	}
	places, memory := r.MaxModels, r.MemoryMiB
	for i := range r.Models {
		h := &r.Models[i]
		users := h.Users
		if h.Model == j.Model {
			users--
		}
		if users > 0 {
			places, memory = places-1, memory-h.MemoryMiB
		}
	}
	needs := 0
	if known := d.s.Model(r.Renderer, m); known != nil {
		needs = known.MemoryMiB
	}
	return places > 0 && (r.MemoryMiB == 0 || memory >= needs)
}

// moved takes a job that made room back into the queue: the frames that it has made are kept.
func (d *decider) moved(c ReportJobMoved) error {
	j := d.held(c.Job, c.Resource)
	if j == nil || j.Yielding == nil {
		return nil
	}
	first := max(1, j.FirstFrame)
	d.emit(j.Renderer, JobMoved{Job: j.ID, Resource: c.Resource, First: first, Frames: max(0, c.Frames),
		Seconds: d.at.Sub(*j.Yielding).Seconds(), Reason: "made room for a session"})
	return nil
}

func (s *State) evolveMoved(r Recorded, e JobMoved) {
	s.changePool(rendererOf(r.Stream), func(p *Pool) {
		p.RoomSeconds = learn(p.RoomSeconds, p.Rooms, e.Seconds)
		p.Rooms++
	})
	before := s.jobs[e.Job]
	if before == nil {
		return
	}
	s.leave(r, before.Resource, UserJob, string(e.Job))
	s.changeJob(e.Job, func(x *Job) {
		x.enter(JobStateQueued, r.At)
		x.Code, x.Reason, x.QueuedAt = "moved", e.Reason, r.when()
		x.Resource, x.AssignedAt, x.StartedAt, x.NotBefore, x.Expected = "", nil, nil, nil, nil
		x.Attempts, x.Moves, x.Yielding = max(0, x.Attempts-1), x.Moves+1, nil
		if e.Frames > 0 {
			x.Pieces = append(slices.Clone(x.Pieces), Piece{Result: PieceID(e.Job, e.First), First: e.First, Last: e.First + e.Frames - 1})
			x.FirstFrame = e.First + e.Frames
		}
	})
}

// Piece is a part of a set of frames that was made already.
type Piece struct {
	Result domain.JobID `json:"result"` // the name under which it is kept among the results
	First  int          `json:"first"`
	Last   int          `json:"last"`
}

// PieceID names the result of the frames of a job from the first on.
func PieceID(j domain.JobID, first int) domain.JobID {
	return domain.JobID(fmt.Sprintf("%s.f%d", j, first))
}

// expectRoom is how long a job takes until it has made room, in seconds.
func (p *Pool) expectRoom() float64 { return orUnseen(p.RoomSeconds, p.Rooms, roomSecondsUnseen) }
