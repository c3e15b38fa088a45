package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The rules that hold for whatever a policy says on whatever view. Each is a
// sentence, and its function is named by it.

// given is what was seen and said.
type instance struct {
	s *scene
	p Policy
	a Assignment
}

// preferWarm are the policies that look for a warm slot before all else; the
// others go by a number, a lot, a hash or the use of a resource.
var preferWarm = []string{domain.PlaceTTFF, domain.PlaceStickyLRU, domain.PlaceDelay, domain.PlaceWarmFirst, domain.PlaceBelady}

// oneQueue are the policies in which any free slot is for anybody.
var oneQueue = append([]string{domain.PlaceLeastLoaded}, preferWarm...)

func whoGetsASlotWaitedAndMayBegin(i *instance) error {
	r := i.a.Request
	if !slices.Contains(i.s.Queue.Requests, r) {
		return fmt.Errorf("%s does not wait", r.ID)
	}
	if i.s.held[r.ID] || r.NotBefore.After(i.s.Now) {
		return fmt.Errorf("%s may not begin", r.ID)
	}
	return nil
}

func theSlotIsFreeAndFits(i *instance) error {
	if !slices.Contains(i.s.Fleet.Free, i.a.Resource) {
		return fmt.Errorf("%s has no free slot", i.a.Resource.Resource)
	}
	if dumbCandidate(&i.s.View, i.p, i.a.Request, i.a.Resource) == nil {
		return fmt.Errorf("%s does not fit on %+v", i.a.Request.ID, i.a.Resource)
	}
	return nil
}

func nothingInUseIsEvicted(i *instance) error {
	for _, m := range Few(&i.s.View, i.p, i.a.Request, i.a.Resource).Best.Evicts {
		if h := i.a.Resource.Holds(m); h == nil || h.Users > 0 {
			return fmt.Errorf("%s is evicted from %+v", m, i.a.Resource)
		}
	}
	return nil
}

func aWarmFreeSlotIsNotPassedOverForAColdOne(i *instance) error {
	if h := i.a.Resource.Holds(i.a.Request.Model); h != nil && h.State == Loaded || !slices.Contains(preferWarm, i.p.Name()) {
		return nil
	}
	for _, o := range i.s.Fleet.Free {
		if h := o.Holds(i.a.Request.Model); h != nil && h.State == Loaded && o.Key == i.a.Request.Key {
			return fmt.Errorf("%s has a warm slot for %s, which goes to %s", o.Resource, i.a.Request.ID, i.a.Resource.Resource)
		}
	}
	return nil
}

// whoIsOverdueIsNext: the head of the queue, unless its model is in use
// somewhere and no slot is free there, or no slot would do.
func whoIsOverdueIsNext(i *instance) error {
	p, ok := i.p.(ttff)
	head := i.s.first(i.s.Queue.Requests)
	if !ok || head == i.a.Request || head.Due.IsZero() && i.s.age(head) <= p.overdue*max(i.s.Seconds, i.s.load(head.Model)) {
		return nil
	}
	inUse := len(i.s.Fleet.Holders[head.Model]) > 0
	for _, o := range i.s.Fleet.Free {
		if c := dumbCandidate(&i.s.View, p, head, o); c != nil && (c.State != Cold || !inUse) {
			return fmt.Errorf("%s is overdue, could have %s, and is not next", head.ID, o.Resource)
		}
	}
	return nil
}

// nobodyInFrontIsPassedOverWithoutAReason: with one queue in order of arrival
// whoever is passed over could not be served, or nothing of his was warm.
func theHeadIsPassedOverOnlyByItsPolicy(i *instance) error {
	if name := i.p.Name(); name != domain.PlaceLeastLoaded && name != domain.PlaceStickyLRU {
		return nil
	}
	for _, r := range i.s.Queue.Requests {
		if r == i.a.Request {
			return nil
		}
		for _, o := range i.s.Fleet.Free {
			if i.s.may(r) && dumbCandidate(&i.s.View, i.p, r, o) != nil {
				return fmt.Errorf("%s could have %s and is passed over", r.ID, o.Resource)
			}
		}
	}
	return nil
}

var rules = []func(*instance) error{
	whoGetsASlotWaitedAndMayBegin, theSlotIsFreeAndFits, nothingInUseIsEvicted,
	aWarmFreeSlotIsNotPassedOverForAColdOne, whoIsOverdueIsNext, theHeadIsPassedOverOnlyByItsPolicy,
}

// aWarmFreeSlotIsLeftIdle says where a policy that has nothing more to say left one.
func aWarmFreeSlotIsLeftIdle(s *scene) error {
	for _, o := range s.Fleet.Free {
		for _, r := range s.Queue.Requests {
			if s.may(r) && o.Key == r.Key && o.Holds(r.Model) != nil {
				return fmt.Errorf("%s is warm for %s", o.Resource, r.ID)
			}
		}
	}
	return nil
}

// withParameters is a policy with random values for some of its parameters.
func withParameters(t *rapid.T, name string) Policy {
	s := domain.PlacementSettings{Policy: name, Parameters: map[string]float64{}}
	for _, p := range domain.PlacementParametersOf(name) {
		if rapid.Bool().Draw(t, "set "+p.Name) {
			s.Parameters[p.Name] = rapid.SampledFrom([]float64{p.Low, min(p.High, p.Low+1), min(p.High, p.Default/2+p.Low/2), p.High}).Draw(t, p.Name)
		}
	}
	if err := s.Check(true); err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	return New(s)
}

func TestPoliciesKeepTheRules(t *testing.T) {
	for _, name := range everyPolicy() {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			s, p := aScene(t), withParameters(t, name)
			for range len(s.Queue.Requests) + 1 {
				a, ok := p.Next(&s.View)
				again, also := p.Next(&s.View)
				if a != again || ok != also {
					t.Fatalf("on the same view: %s, then %s", said(a, ok), said(again, also))
				}
				if !ok {
					if a != (Assignment{}) {
						t.Fatalf("nothing, and yet %+v", a)
					}
					break
				}
				for _, rule := range rules {
					if err := rule(&instance{s, p, a}); err != nil {
						t.Fatalf("%s: %v", said(a, ok), err)
					}
				}
				s.give(p, a)
			}
			if _, ok := p.Next(&s.View); ok {
				t.Fatalf("it never ends")
			}
			if !s.Wake.IsZero() && !s.Wake.After(s.Now) {
				t.Fatalf("asks to be asked again at %v, and it is %v", s.Wake, s.Now)
			}
			if err := aWarmFreeSlotIsLeftIdle(s); err != nil && slices.Contains(oneQueue, p.Name()) {
				t.Fatalf("left idle: %v", err)
			}
		}))
	}
}
