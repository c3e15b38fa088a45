package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Request is a session or a job that waits for a slot.
type Request struct {
	Kind      string // session or job
	ID        string
	Seq       int64 // orders requests by age
	Number    int64 // of its arrival in the pool, from 1
	Model     domain.ModelKey
	Key       string // of the overrides that its resource must have been started with
	Owner     domain.Owner
	Home      domain.ResourceID // whose queue it was put into on arrival, see Binder; empty: none
	Since     time.Time         // waits since
	NotBefore time.Time         // may not begin before; zero: now
	Due       time.Time         // deadline that it can still make; zero: none
	Seconds   float64           // it is expected to keep its slot, loading excluded
}

// before orders requests: deadlines that can be made first, earliest first, then arrival.
func (r *Request) before(o *Request) int {
	if c := cmp.Compare(due(r), due(o)); c != 0 {
		return c
	}
	return cmp.Compare(r.Seq, o.Seq)
}

func due(r *Request) int64 {
	if r.Due.IsZero() {
		return 1<<63 - 1
	}
	return r.Due.UnixNano()
}

// Line is those of a queue who want the same: one model, on a resource started the same way.
type Line struct {
	Model    domain.ModelKey
	Key      string
	Requests []*Request // in order, never empty

	owner int   // in Fleet.All, see Fleet.owner
	dealt int64 // one more than the changes of the fleet when that was found out; 0: never
}

// wanted is what tells lines apart.
type wanted struct {
	model domain.ModelKey
	key   string
}

func (l *Line) compare(w wanted) int {
	if c := strings.Compare(string(l.Model), string(w.model)); c != 0 {
		return c
	}
	return strings.Compare(l.Key, w.key)
}

// find says where the line for a model is, or would be.
func (q *Queue) find(m domain.ModelKey, key string) (int, bool) {
	return slices.BinarySearchFunc(q.Lines, wanted{m, key}, (*Line).compare)
}

// Queue is requests of the same rank, in order, and by what they want.
type Queue struct {
	Rank     int // the higher is served first
	Requests []*Request
	Lines    []*Line // by model, then key
}

// Add puts a request into its place; one that is there is replaced.
func (q *Queue) Add(r *Request) {
	q.Requests = put(q.Requests, r)
	i, found := q.find(r.Model, r.Key)
	if !found {
		q.Lines = slices.Insert(q.Lines, i, &Line{Model: r.Model, Key: r.Key})
	}
	q.Lines[i].Requests = put(q.Lines[i].Requests, r)
}

// Remove takes a request out, which may be another copy of the same.
func (q *Queue) Remove(r *Request) {
	q.Requests = drop(q.Requests, r)
	i, found := q.find(r.Model, r.Key)
	if !found {
		return
	}
	if q.Lines[i].Requests = drop(q.Lines[i].Requests, r); len(q.Lines[i].Requests) == 0 {
		q.Lines = slices.Delete(q.Lines, i, i+1)
	}
}

// Line finds those who want a model; nil: nobody.
func (q *Queue) Line(m domain.ModelKey, key string) *Line {
	if i, found := q.find(m, key); found {
		return q.Lines[i]
	}
	return nil
}

func put(list []*Request, r *Request) []*Request {
	if n := len(list); n == 0 || list[n-1].before(r) < 0 { // most come last
		return append(list, r)
	}
	i, found := slices.BinarySearchFunc(list, r, (*Request).before)
	if found {
		list[i] = r
		return list
	}
	return slices.Insert(list, i, r)
}

func drop(list []*Request, r *Request) []*Request {
	i, found := slices.BinarySearchFunc(list, r, (*Request).before)
	switch {
	case !found:
		return list
	case i < len(list)/2: // most leave near the front of a long queue: move what is before, not what is after
		copy(list[1:i+1], list[:i])
		list[0] = nil
		return list[1:]
	}
	return slices.Delete(list, i, i+1)
}
