package pool_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// The rules that hold whatever happens. Every test of this package checks
// them: those of the state after each command, those of events before each
// event is folded in. Each rule is a sentence, and its function is named by it.

var stateRules = []func(*world) error{
	aResourceNeverHasMoreUsersThanSlots,
	aResourceNeverHoldsMoreModelsThanItMay,
	aSessionOrJobHoldsASlotExactlyIfItsResourceListsIt,
	theUsersOfAModelAreCounted,
	everyWaitingSessionIsPlacedOrWaitsForAReasonOrHasEnded,
	whoWaitsBesideAFreeSlotIsToldForWhat,
	noLeaseIsWithoutAnEnd,
	whatHasEndedHoldsNothing,
	theOrdersAreWhatSortingGives,
	theUseOfEveryOwnerIsCounted,
	noFrameIsMadeTwice,
	noPartOutlivesItsSet,
}

var eventRules = []func(*world, pool.Recorded) error{
	versionsAreDenseAndPositionsGapless,
	noSlotIsHeldTwice,
	noModelInUseIsEvicted,
	aWarmFreeSlotIsNeverPassedOverForAColdOne,
	aModelIsLoadedOnlyWhereThereIsRoom,
	noJobTakesASlotThatAWaitingSessionCouldUse,
	aPoolNeverGrowsBeyondItsLimit,
	theLastWarmHolderOfAModelInDemandStays,
	noPoolGrowsWhileItIsBackedOff,
	aPoolChangesNoFasterThanItMay,
	nothingHappensToWhatHasEnded,
	aDecisionHasAReasonAndIsSmall,
	noOwnerGetsMoreThanItsQuota,
	noJobTakesTheReserve,
	thePartsOfASetAreItsFrames,
	aJobIsMovedWithinBoundsOnly,
}

func (w *world) checkState(c pool.Command) {
	w.Helper()
	for _, rule := range stateRules {
		if err := rule(w); err != nil {
			w.Fatalf("after %#v: %v", c, err)
		}
	}
}

func (w *world) checkEvent(r pool.Recorded) {
	w.Helper()
	for _, rule := range eventRules {
		if err := rule(w, r); err != nil {
			w.Fatalf("event %d %#v: %v", r.Position, r.Event, err)
		}
	}
}

// checkSubjects: whoever an event names finds it under its name.
func (w *world) checkSubjects(r pool.Recorded) {
	w.Helper()
	subjects := w.state.Subjects(r)
	renderer := strings.TrimPrefix(string(r.Stream), "pool/")
	v := reflect.ValueOf(r.Event)
	for field, prefix := range map[string]string{"Session": "session:", "Job": "job:", "By": "job:", "PartOf": "job:", "Resource": "resource:", "Owner": "owner:", "Model": "model:" + renderer + "/"} {
		f := v.FieldByName(field)
		if _, requested := r.Event.(pool.ResourceRequested); !f.IsValid() || f.String() == "" || requested && field == "Model" {
			continue // a resource with a model for life is found by its own name
		}
		if !slices.Contains(subjects, prefix+f.String()) {
			w.Fatalf("%#v is not found under %s%s, only under %q", r.Event, prefix, f, subjects)
		}
	}
	if e := w.state.Session(domain.SessionID(fmt.Sprint(v.FieldByName("Session")))); e != nil && !slices.Contains(subjects, "owner:"+string(e.Owner)) {
		w.Fatalf("%#v is not found by its owner, only under %q", r.Event, subjects)
	}
}

func aResourceNeverHasMoreUsersThanSlots(w *world) error {
	for _, r := range pool.AllResources(w.state) {
		if len(r.Users) > r.Slots {
			return fmt.Errorf("%s has %d slots and the users %v", r.ID, r.Slots, r.Users)
		}
	}
	return nil
}

func aResourceNeverHoldsMoreModelsThanItMay(w *world) error {
	for _, r := range pool.AllResources(w.state) {
		seen := map[domain.ModelKey]bool{}
		for _, h := range r.Models {
			if seen[h.Model] {
				return fmt.Errorf("%s holds %s twice", r.ID, h.Model)
			}
			seen[h.Model] = true
		}
		if len(r.Models) > r.MaxModels {
			return fmt.Errorf("%s may hold %d models and holds %v", r.ID, r.MaxModels, r.Models)
		}
	}
	return nil
}

func aSessionOrJobHoldsASlotExactlyIfItsResourceListsIt(w *world) error {
	listed := map[string]domain.ResourceID{}
	for _, r := range pool.AllResources(w.state) {
		for _, u := range r.Users {
			key := u.Kind + " " + u.ID
			if other, twice := listed[key]; twice {
				return fmt.Errorf("%s holds a slot of %s and one of %s", key, other, r.ID)
			}
			listed[key] = r.ID
		}
	}
	check := func(key string, holding bool, on domain.ResourceID) error {
		if at := listed[key]; holding != (at != "") || holding && at != on {
			return fmt.Errorf("%s says it holds a slot of %q (%v), and it is listed by %q", key, on, holding, at)
		}
		delete(listed, key)
		return nil
	}
	for _, e := range pool.AllSessions(w.state) {
		if err := check(pool.UserSession+" "+string(e.ID), e.Holding(), e.Resource); err != nil {
			return err
		}
	}
	for _, j := range pool.AllJobs(w.state) {
		if err := check(pool.UserJob+" "+string(j.ID), j.Holding(), j.Resource); err != nil {
			return err
		}
	}
	if len(listed) > 0 {
		return fmt.Errorf("resources list users that are not there: %v", listed)
	}
	return nil
}

func theUsersOfAModelAreCounted(w *world) error {
	for _, r := range pool.AllResources(w.state) {
		users := map[domain.ModelKey]int{}
		for _, u := range r.Users {
			users[u.Model]++
			if r.Holds(u.Model) == nil {
				return fmt.Errorf("%s %s uses %s on %s, which does not hold it", u.Kind, u.ID, u.Model, r.ID)
			}
		}
		for _, h := range r.Models {
			if h.Users != users[h.Model] {
				return fmt.Errorf("%s counts %d users of %s and lists %d", r.ID, h.Users, h.Model, users[h.Model])
			}
		}
		if idle := r.State == pool.ResourceStateReady && len(r.Users) == 0; idle != (r.IdleSince != nil) {
			return fmt.Errorf("%s is %s with %d users and idle since %v", r.ID, r.State, len(r.Users), r.IdleSince)
		}
	}
	return nil
}

func everyWaitingSessionIsPlacedOrWaitsForAReasonOrHasEnded(w *world) error {
	for _, e := range pool.AllSessions(w.state) {
		n := 0
		opened := e.State == pool.SessionStateOpened && e.Throughout && e.LeaseSeconds > 0 && e.Resource == "" // asks for nothing yet, and its lease ends
		for _, is := range []bool{opened, e.Waiting(), e.Holding(), e.Ended} {
			if is {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("session %s is %s, which is not one of opened, waiting, placed and ended", e.ID, e.State)
		}
		if e.Waiting() && (e.Code == "" || e.Reason == "") {
			return fmt.Errorf("session %s is %s without a reason", e.ID, e.State)
		}
		if place := w.state.PlaceOfSession(e.ID, w.now); e.Waiting() && (place.Position < 1 || place.Reason == "" || place.EstimatedWaitSeconds <= 0) {
			return fmt.Errorf("session %s waits at %+v", e.ID, place)
		}
	}
	return nil
}

// whoWaitsBesideAFreeSlotIsToldForWhat: nobody is told that there is no room
// where a free slot would do, nor that there is where none would.
func whoWaitsBesideAFreeSlotIsToldForWhat(w *world) error {
	for _, e := range pool.AllSessions(w.state) {
		if !e.Waiting() {
			continue
		}
		would, free := false, false
		for _, x := range w.state.ResourcesOf(e.Renderer) {
			if x.Free() > 0 {
				free = true
				would = would || x.Key == e.Overrides.Key() && (x.Holds(e.Model) != nil || hasRoom(w.state, x, e.Model))
			}
		}
		reason := w.state.PlaceOfSession(e.ID, w.now).Reason
		if noRoom := strings.Contains(reason, "no room"); noRoom && would || noRoom && !free {
			return fmt.Errorf("session %s is told %q, and a slot that would do is free: %v", e.ID, reason, would)
		}
		for _, beside := range []string{"has the model", "come first", "the policy"} {
			if strings.Contains(reason, beside) && !would {
				return fmt.Errorf("session %s is told %q, and no free slot would do", e.ID, reason)
			}
		}
	}
	return nil
}

func noLeaseIsWithoutAnEnd(w *world) error {
	for _, e := range pool.AllSessions(w.state) {
		if e.LeaseSeconds <= 0 {
			return fmt.Errorf("session %s has a lease of %v seconds", e.ID, e.LeaseSeconds)
		}
	}
	return nil
}

func whatHasEndedHoldsNothing(w *world) error {
	for _, r := range pool.AllResources(w.state) {
		if r.Ended && (len(r.Users) > 0 || len(r.Models) > 0 || r.EndedAt == nil) {
			return fmt.Errorf("%s is %s with %d users and %d models", r.ID, r.State, len(r.Users), len(r.Models))
		}
		if stopping := r.State == pool.ResourceStateStopping; stopping && len(r.Users) > 0 {
			return fmt.Errorf("%s is stopping under its users %v", r.ID, r.Users)
		}
	}
	return nil
}

func theOrdersAreWhatSortingGives(w *world) error {
	if kept, dumb := pool.Orders(w.state), pool.SortedOrders(w.state); !slices.Equal(kept, dumb) {
		return fmt.Errorf("the orders are\n%s\nand sorting gives\n%s", strings.Join(kept, "\n"), strings.Join(dumb, "\n"))
	}
	return nil
}

func versionsAreDenseAndPositionsGapless(w *world, r pool.Recorded) error {
	if r.Position != w.head+1 {
		return fmt.Errorf("it follows position %d", w.head)
	}
	last := int64(0)
	for _, e := range w.events {
		if e.Stream == r.Stream {
			last = e.Version
		}
	}
	if r.Version != last+1 {
		return fmt.Errorf("it has version %d and follows version %d of %s", r.Version, last, r.Stream)
	}
	return nil
}

// slotGiven is who was given a slot where, if an event gives one.
func slotGiven(e pool.Event) (user pool.User, on domain.ResourceID, warm, ok bool) {
	switch e := e.(type) {
	case pool.SessionAllocated:
		return pool.User{Kind: pool.UserSession, ID: string(e.Session), Model: e.Model}, e.Resource, e.Warm, true
	case pool.JobAssigned:
		return pool.User{Kind: pool.UserJob, ID: string(e.Job), Model: e.Model}, e.Resource, e.Warm, true
	}
	return pool.User{}, "", false, false
}

func noSlotIsHeldTwice(w *world, r pool.Recorded) error {
	u, on, warm, ok := slotGiven(r.Event)
	if !ok {
		return nil
	}
	x := w.fold.Resource(on)
	if x == nil || x.State != pool.ResourceStateReady || len(x.Users) >= x.Slots {
		return fmt.Errorf("%s has no free slot: %+v", on, x)
	}
	if h := x.Holds(u.Model); h == nil || (h.State == placement.Loaded) != warm {
		return fmt.Errorf("warm is %v, and %s holds %+v", warm, on, x.Models)
	}
	return nil
}

func noModelInUseIsEvicted(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.ModelEvicted)
	if !ok {
		return nil
	}
	for _, s := range pool.AllSessions(w.fold) {
		if s.Holding() && s.Resource == e.Resource && s.Model == e.Model {
			return fmt.Errorf("session %s uses it", s.ID)
		}
	}
	for _, j := range pool.AllJobs(w.fold) {
		if j.Holding() && j.Resource == e.Resource && j.Model == e.Model {
			return fmt.Errorf("job %s uses it", j.ID)
		}
	}
	return nil
}

// preferWarm are the policies that look for a warm slot before all else; the
// others go by a number, a lot, a hash or the use of a resource.
var preferWarm = []string{domain.PlaceTTFF, domain.PlaceStickyLRU, domain.PlaceDelay, domain.PlaceWarmFirst}

// aWarmFreeSlotIsNeverPassedOverForAColdOne: neither when a slot is given, nor when a load begins.
func aWarmFreeSlotIsNeverPassedOverForAColdOne(w *world, r pool.Recorded) error {
	u, on, warm, ok := slotGiven(r.Event)
	model := u.Model
	if e, begins := r.Event.(pool.ModelLoading); begins {
		model, on, warm, ok = e.Model, e.Resource, false, true
	}
	if !ok || warm || !slices.Contains(preferWarm, w.fold.Pool(w.fold.Resource(on).Renderer).Settings.Placement.Policy) {
		return nil
	}
	for _, x := range w.fold.ResourcesOf(w.fold.Resource(on).Renderer) {
		if x.Key != w.fold.Resource(on).Key {
			continue // started otherwise than was asked for
		}
		if h := x.Holds(model); x.Free() > 0 && h != nil && h.State == placement.Loaded {
			return fmt.Errorf("%s has a free slot with %s loaded", x.ID, model)
		}
	}
	return nil
}

func aModelIsLoadedOnlyWhereThereIsRoom(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.ModelLoading)
	if !ok {
		return nil
	}
	x := w.fold.Resource(e.Resource)
	if x.Model != "" && x.Model != e.Model {
		return fmt.Errorf("%s keeps %s for life", x.ID, x.Model)
	}
	if len(x.Models) >= x.MaxModels {
		return fmt.Errorf("%s holds %d models already", x.ID, len(x.Models))
	}
	needs := 0
	if known := w.fold.Model(x.Renderer, e.Model); known != nil {
		needs = known.MemoryMiB
	}
	for _, h := range x.Models {
		needs += h.MemoryMiB
	}
	if x.MemoryMiB > 0 && needs > x.MemoryMiB {
		return fmt.Errorf("%s has %d MiB, and its models would need %d", x.ID, x.MemoryMiB, needs)
	}
	return nil
}

// noJobTakesASlotThatAWaitingSessionCouldUse: sessions go before jobs, except
// those that their policy has wait for something better. A
// session that came later than the first 64 waits for its turn at the free slots.
func noJobTakesASlotThatAWaitingSessionCouldUse(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.JobAssigned)
	if !ok {
		return nil
	}
	x := w.fold.Resource(e.Resource)
	waiting := pool.Waiting(w.fold, x.Renderer)
	for _, s := range waiting[:min(len(waiting), 64)] {
		if x.Key != s.Overrides.Key() || x.Holds(s.Model) == nil && !hasRoom(w.fold, x, s.Model) || hadBetterWait(w, s) {
			continue
		}
		return fmt.Errorf("session %s waits and could have this slot of %s", s.ID, x.ID)
	}
	return nil
}

// hadBetterWait says whether its policy may have a session wait for something else than a slot that would do.
func hadBetterWait(w *world, s *pool.Session) bool {
	switch set := w.fold.Pool(s.Renderer).Settings.Placement; set.Policy {
	case domain.PlaceRandom, domain.PlaceRoundRobin, domain.PlaceHash, domain.PlaceHashBounded:
		return true // for its own resource
	case domain.PlaceDelay:
		return w.now.Sub(s.RequestedAt).Seconds() < set.Number("wait")
	case domain.PlaceTTFF: // for a busy resource that has its model
		return slices.ContainsFunc(w.fold.ResourcesOf(s.Renderer), func(r *pool.Resource) bool { return r.Key == s.Overrides.Key() && r.Holds(s.Model) != nil })
	}
	return false
}

// hasRoom says whether a resource could hold a model after all that is unused is gone.
func hasRoom(s *pool.State, x *pool.Resource, m domain.ModelKey) bool {
	if x.Model != "" && x.Model != m {
		return false
	}
	places, needs := x.MaxModels, 0
	if known := s.Model(x.Renderer, m); known != nil {
		needs = known.MemoryMiB
	}
	for _, h := range x.Models {
		if h.Users > 0 {
			places--
			needs += h.MemoryMiB
		}
	}
	return places > 0 && (x.MemoryMiB == 0 || needs <= x.MemoryMiB)
}

func aPoolNeverGrowsBeyondItsLimit(w *world, r pool.Recorded) error {
	if _, ok := r.Event.(pool.ResourceRequested); !ok {
		return nil
	}
	id := domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/"))
	if p := w.fold.Pool(id); p == nil || len(w.fold.ResourcesOf(id)) >= p.Settings.Scaling.Max {
		return fmt.Errorf("%d resources have not ended, and the pool is %+v", len(w.fold.ResourcesOf(id)), p)
	}
	return nil
}

// theLastWarmHolderOfAModelInDemandStays: unless the limit was lowered, or it makes room where all that may be there is there.
func theLastWarmHolderOfAModelInDemandStays(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.PoolScaled)
	id := domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/"))
	live := w.fold.ResourcesOf(id)
	if !ok || len(live) > w.fold.Pool(id).Settings.Scaling.Max || strings.HasPrefix(e.Decision.Reason, "makes room") {
		return nil
	}
	for _, stop := range e.Stop {
		for _, h := range w.fold.Resource(stop).Models {
			others := slices.ContainsFunc(live, func(x *pool.Resource) bool {
				return x.Live() && !slices.Contains(e.Stop, x.ID) && x.Holds(h.Model) != nil
			})
			if who := w.whoWants(id, h.Model); who != "" && !others {
				return fmt.Errorf("%s is the last that holds %s, and %s wants it", stop, h.Model, who)
			}
		}
	}
	return nil
}

// whoWants names somebody who waits for a model, or was refused it a moment ago.
func (w *world) whoWants(id domain.RendererID, m domain.ModelKey) string {
	for _, s := range pool.AllSessions(w.fold) {
		if s.Renderer == id && s.Model == m && s.Waiting() {
			return "session " + string(s.ID)
		}
	}
	for _, j := range pool.AllJobs(w.fold) {
		if j.Renderer == id && j.Model == m && (j.State == pool.JobStateQueued || j.State == pool.JobStateWaiting) {
			return "job " + string(j.ID)
		}
	}
	for _, u := range w.fold.Pool(id).Unmet {
		if u.Model == m && w.now.Before(u.Until) {
			return "a client who was refused"
		}
	}
	return ""
}

func noPoolGrowsWhileItIsBackedOff(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.ResourceRequested)
	if !ok || e.Launcher == domain.LauncherStatic {
		return nil
	}
	p := w.fold.Pool(domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/")))
	if p.BackoffUntil != nil && w.now.Before(*p.BackoffUntil) {
		return fmt.Errorf("its pool is backed off until %s", p.BackoffUntil)
	}
	return nil
}

// aPoolChangesNoFasterThanItMay in a minute; what lies above a lowered limit goes all the same.
func aPoolChangesNoFasterThanItMay(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.PoolScaled)
	if !ok || strings.HasPrefix(e.Decision.Reason, "makes room") {
		return nil
	}
	id := domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/"))
	set := w.fold.Pool(id).Settings.Scaling
	up, down, started, stopped := set.Count("up_per_minute"), set.Count("down_per_minute"), 0, len(e.Stop)
	started = max(0, e.To-e.From+len(e.Stop))
	since := w.now.Add(-time.Minute)
	if l := w.fold.Pool(id).LastScaling; l != nil && l.MinuteFrom.After(since) {
		started, stopped = started+l.Started, stopped+l.Stopped
	}
	if up > 0 && e.To > e.From && started > up {
		return fmt.Errorf("%d were started in a minute, and %d may be", started, up)
	}
	if over := len(w.fold.ResourcesOf(id)) > set.Max; down > 0 && len(e.Stop) > 0 && stopped > down && !over {
		return fmt.Errorf("%d were stopped in a minute, and %d may be", stopped, down)
	}
	return nil
}

// nothingHappensToWhatHasEnded: an event about a session, job or resource finds it there and alive.
func nothingHappensToWhatHasEnded(w *world, r pool.Recorded) error {
	v := reflect.ValueOf(r.Event)
	id := func(field string) string {
		if f := v.FieldByName(field); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
		return ""
	}
	if e := w.fold.Session(domain.SessionID(id("Session"))); e != nil && e.Ended {
		return fmt.Errorf("session %s has %s", e.ID, e.State)
	}
	if j := w.fold.Job(domain.JobID(id("Job"))); j != nil && j.Ended {
		return fmt.Errorf("job %s has %s", j.ID, j.State)
	}
	if x := w.fold.Resource(domain.ResourceID(id("Resource"))); x != nil && x.Ended && strings.HasPrefix(r.Event.Type(), "resource.") {
		return fmt.Errorf("resource %s has %s", x.ID, x.State)
	}
	return nil
}

func aDecisionHasAReasonAndIsSmall(_ *world, r pool.Recorded) error {
	f := reflect.ValueOf(r.Event).FieldByName("Decision")
	if !f.IsValid() {
		return nil
	}
	d := f.Interface().(pool.Decision)
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("write the decision: %w", err)
	}
	if len(b) > 1024 || d.Reason == "" || d.Outcome == "" || d.Policy == "" || d.Version == 0 {
		return fmt.Errorf("the decision has %d bytes: %s", len(b), b)
	}
	return nil
}
