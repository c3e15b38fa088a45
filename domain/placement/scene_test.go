package placement

import (
	"flag"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// A failure is repeated by the seed that it prints; files of failures would be left behind in the tree.
func init() {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

var now = time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)

func ago(seconds float64) time.Time { return now.Add(-time.Duration(seconds * float64(time.Second))) }

// scene is a view that a test puts together. A load takes 20 seconds and work
// 10 where nothing else is said, and the mean time to first frame is long, so that nobody is overdue.
type scene struct {
	View
	known  map[domain.ModelKey]Known
	demand map[domain.ModelKey]float64
	shares map[domain.Owner]float64
	held   map[string]bool // requests that may not begin
	next   map[domain.ModelKey]time.Time
	seq    int64
}

func newScene() *scene {
	s := &scene{known: map[domain.ModelKey]Known{}, demand: map[domain.ModelKey]float64{}, shares: map[domain.Owner]float64{},
		held: map[string]bool{}, next: map[domain.ModelKey]time.Time{}}
	s.View = View{Now: now, Fleet: &Fleet{}, Queue: &Queue{}, Seconds: 1000, CanLoad: true,
		Known: func(m domain.ModelKey) Known {
			if k, ok := s.known[m]; ok {
				return k
			}
			return Known{LoadSeconds: 20, WorkSeconds: 10}
		},
		Demand:  func(m domain.ModelKey) float64 { return s.demand[m] },
		Ready:   func(r *Request) bool { return !s.held[r.ID] },
		Share:   func(o domain.Owner) float64 { return s.shares[o] },
		NextUse: func(m domain.ModelKey) (time.Time, bool) { at, ok := s.next[m]; return at, ok },
	}
	return s
}

// option is a resource that takes two models and has one slot free of as many as it has users and one more.
func option(id domain.ResourceID, seq int64, models ...Held) *Option {
	o := &Option{Resource: id, Seq: seq, Free: 1, MaxModels: 2, Models: models, IdleSince: ago(60)}
	for _, h := range models {
		for range h.Users {
			o.Users = append(o.Users, User{Kind: "job", ID: "u", Model: h.Model, Since: ago(0), Seconds: 10})
			o.IdleSince = time.Time{}
		}
	}
	o.Slots = len(o.Users) + 1
	return o
}

func (o *Option) with(change func(*Option)) *Option {
	change(o)
	return o
}

func full(o *Option)     { o.Free, o.Slots = 0, len(o.Users) }
func onePlace(o *Option) { o.MaxModels = 1 }

// since says for how long the users have been at it, and how long that is expected to take.
func since(seconds, expected float64) func(*Option) {
	return func(o *Option) {
		for i := range o.Users {
			o.Users[i].Since, o.Users[i].Seconds = ago(seconds), expected
		}
	}
}

func loaded(m domain.ModelKey, seconds float64, users int) Held {
	return Held{Model: m, State: Loaded, Since: ago(3600), LastUsed: ago(60), LoadSeconds: seconds, Users: users}
}

func loads(m domain.ModelKey, seconds, since float64) Held {
	return Held{Model: m, State: Loading, Since: ago(since), LoadSeconds: seconds, Users: 1}
}

func (h Held) mib(n int) Held {
	h.MemoryMiB = n
	return h
}

func (h Held) unusedFor(seconds float64) Held {
	h.LastUsed = ago(seconds)
	return h
}

func (h Held) served(seconds float64) Held {
	h.Served = seconds
	return h
}

func (s *scene) has(options ...*Option) *scene {
	for _, o := range options {
		s.Fleet.Change(nil, o)
	}
	return s
}

// asks puts a request into the queue that has waited for so long, the next after those before it.
func (s *scene) asks(id string, m domain.ModelKey, age float64, change ...func(*Request)) *scene {
	s.seq++
	s.Arrivals++
	r := &Request{Kind: "job", ID: id, Seq: s.seq, Number: s.Arrivals, Model: m, Since: ago(age), Seconds: 10}
	for _, f := range change {
		f(r)
	}
	s.Queue.Add(r)
	return s
}

func work(seconds float64) func(*Request)    { return func(r *Request) { r.Seconds = seconds } }
func by(o domain.Owner) func(*Request)       { return func(r *Request) { r.Owner = o } }
func dueIn(seconds float64) func(*Request)   { return func(r *Request) { r.Due = ago(-seconds) } }
func notBefore(s float64) func(*Request)     { return func(r *Request) { r.NotBefore = ago(-s) } }
func otherwise(key string) func(*Request)    { return func(r *Request) { r.Key = key } }
func numbered(number int64) func(r *Request) { return func(r *Request) { r.Number = number } }

// given is a policy by name with parameters, as settings make it.
func given(name string, parameters ...any) Policy {
	s := domain.PlacementSettings{Policy: name, Parameters: map[string]float64{}}
	for i := 0; i < len(parameters); i += 2 {
		s.Parameters[parameters[i].(string)] = parameters[i+1].(float64)
	}
	return New(s)
}

// said is an assignment as "request on resource", or "nothing".
func said(a Assignment, ok bool) string {
	if !ok {
		return "nothing"
	}
	return a.Request.ID + " on " + string(a.Resource.Resource)
}

func (s *scene) says(t *testing.T, p Policy, want string) Assignment {
	t.Helper()
	a, ok := p.Next(&s.View)
	if got := said(a, ok); got != want {
		t.Errorf("%s: %s, not %s", p.Name(), got, want)
	}
	return a
}

// give carries an assignment out, as the pool would: it evicts, loads, and takes the slot.
func (s *scene) give(p Policy, a Assignment) Choice {
	c := Few(&s.View, p, a.Request, a.Resource)
	o := *a.Resource
	o.Models, o.Users = slices.Clone(o.Models), append(slices.Clone(o.Users), User{Kind: "job", ID: a.Request.ID, Model: a.Request.Model, Since: now, Seconds: a.Request.Seconds})
	o.Models = slices.DeleteFunc(o.Models, func(h Held) bool { return c.Best != nil && slices.Contains(c.Best.Evicts, h.Model) })
	if o.Holds(a.Request.Model) == nil {
		k := s.Known(a.Request.Model)
		o.Models = append(o.Models, Held{Model: a.Request.Model, State: Loading, Since: now, LoadSeconds: k.LoadSeconds, MemoryMiB: k.MemoryMiB})
	}
	h := o.Holds(a.Request.Model)
	h.Users++
	h.LastUsed = now
	o.Free--
	o.IdleSince = time.Time{}
	s.Fleet.Change(a.Resource, &o)
	s.Queue.Remove(a.Request)
	return c
}

// run gives slots until there is nothing more to give, at most so many.
func (s *scene) run(p Policy, most int) []string {
	var all []string
	for range most {
		a, ok := p.Next(&s.View)
		if !ok {
			break
		}
		all = append(all, said(a, ok))
		s.give(p, a)
	}
	return all
}

func everyPolicy() []string {
	return slices.Concat(domain.PlacementPolicies(), domain.PlacementReferences())
}

func TestEveryNameMakesThatPolicy(t *testing.T) {
	for _, name := range domain.PlacementPolicies() {
		if p := given(name); p.Name() != name || p.Version() < 1 {
			t.Errorf("%s makes %s version %d", name, p.Name(), p.Version())
		}
	}
	for name, want := range map[string]string{"": "ttff", formerly: "ttff", domain.PlaceBelady: "belady", domain.PlaceAllWarm: "least-loaded"} {
		if p := given(name); p.Name() != want {
			t.Errorf("%q makes %s", name, p.Name())
		}
	}
	// Whatever was said to the former policy meant something else.
	if p := given(formerly, "payoff", 3.0); p != given("ttff") {
		t.Errorf("the former policy gives %+v", p)
	}
	for name := range maps.Keys(map[string]bool{"payoff": true, "patience": true, "copies": true, "overdue": true, "relief": true, "share": true}) {
		if given("ttff") == given("ttff", name, 7.0) {
			t.Errorf("ttff does not listen to %s", name)
		}
	}
	for _, name := range []string{"ratio", "demand"} {
		if given("ttff") == given("ttff", name, 0.0) {
			t.Errorf("ttff does not listen to %s", name)
		}
	}
}
