package service_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const (
	raceClients   = 64
	raceResources = 8
	raceFor       = 10 * time.Second
)

// booking and release are what the clients of the race do; allocated and refused what they are answered.
type (
	booking   struct{}
	release   struct{ session domain.SessionID }
	allocated struct {
		session  domain.SessionID
		resource domain.ResourceID
		position int64
	}
	refused  struct{ position int64 }
	released struct{}
)

// poolModel: a resource has one session at a time, "no capacity" is said only
// when all are taken, and a release frees what its session held.
func poolModel(resources []domain.ResourceID) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return [raceResources]domain.SessionID{} },
		Step: func(state, in, out any) (bool, any) {
			s := state.([raceResources]domain.SessionID)
			switch got := out.(type) {
			case allocated:
				for i, id := range resources {
					if id == got.resource && s[i] == "" {
						s[i] = got.session
						return true, s
					}
				}
				return false, s
			case refused:
				for i := range s {
					if s[i] == "" {
						return false, s
					}
				}
				return true, s
			default:
				for i := range s {
					if s[i] == in.(release).session {
						s[i] = ""
						return true, s
					}
				}
				return false, s
			}
		},
	}
}

// 64 clients book and release on a pool of 8 for 10 s against two replicas on
// one Postgres: what they saw is linearizable, and the live views are what the log says.
func TestRaceOnTwoReplicas(t *testing.T) {
	dsn := dbtest.DSN(t)
	var nodes [2]*node
	for i := range nodes {
		nodes[i] = start(t, func(c *service.Config) { c.DatabaseURL, c.NoManagers = dsn, true })
	}
	resources := readyPool(t, nodes[0])
	var mu sync.Mutex
	var ops []porcupine.Operation
	began := time.Now()
	record := func(client int, in, out any, call time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		ops = append(ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: int64(time.Since(began))})
	}
	var wg sync.WaitGroup
	for client := range raceClients {
		wg.Go(func() {
			for i := 0; time.Since(began) < raceFor; i++ {
				raceOnce(t, nodes[(client+i)%2], nodes[(client+i+1)%2], client, began, record)
			}
		})
	}
	wg.Wait()
	counts := map[string]int{}
	for _, o := range ops {
		counts[fmt.Sprintf("%T", o.Output)]++
	}
	t.Logf("%d operations: %v; lanes: %+v %+v", len(ops), counts, nodes[0].Lane.Stats(), nodes[1].Lane.Stats())
	if counts["service_test.allocated"] < 100 || counts["service_test.refused"] < 100 {
		t.Errorf("too little happened to prove anything: %v", counts)
	}
	if !inPositionOrder(ops) {
		t.Error("a decision that was answered before another was asked for has the later position")
	}
	switch porcupine.CheckOperationsTimeout(poolModel(resources), ops, 3*time.Minute) {
	case porcupine.Illegal:
		t.Error("the history is not linearizable")
	case porcupine.Unknown:
		t.Error("whether the history is linearizable was not found out in three minutes")
	}
	nodes[0].verify()
}

// raceOnce books on one replica and releases on the other.
func raceOnce(t *testing.T, a, b *node, client int, began time.Time, record func(int, any, any, time.Duration)) {
	call := commands.Call{Actor: domain.Actor(fmt.Sprintf("client:%d", client))}
	at := time.Since(began)
	got, err := a.Handler.BookResource(context.Background(), call, pool.BookResource{Renderer: "race", Model: "m", Owner: "o"})
	if r, ok := domain.AsRefusal(err); ok && r.Code == pool.CodeNoCapacity {
		record(client, booking{}, refused{r.Position}, at)
		return
	}
	if err != nil {
		t.Errorf("book: %v", err)
		return
	}
	record(client, booking{}, allocated{got.Session.ID, got.Session.Resource, got.Session.Decision}, at)
	at = time.Since(began)
	if _, err := b.Handler.ReleaseSession(context.Background(), call, pool.ReleaseSession{Session: got.Session.ID}); err != nil {
		t.Errorf("release: %v", err)
		return
	}
	record(client, release{got.Session.ID}, released{}, at)
}

// readyPool brings up eight ready resources without processes behind them.
func readyPool(t *testing.T, n *node) []domain.ResourceID {
	t.Helper()
	n.renderer("race", doc{"model_loading": "none", "scaling": doc{"min": raceResources, "max": raceResources, "idle": "1h"}})
	live, err := n.Work.LiveResources(t.Context())
	if err != nil || len(live) != raceResources {
		t.Fatalf("%d resources: %v", len(live), err)
	}
	var ids []domain.ResourceID
	for _, r := range live {
		ids = append(ids, r.ID)
		l := domain.Launched{Resource: r.ID, Address: "127.0.0.1:9"}
		for _, c := range []pool.Command{pool.ReportStarting{Launched: l}, pool.ReportReady{Resource: r.ID, Address: l.Address}} {
			if err := n.Handler.Report(t.Context(), "process:test", c); err != nil {
				t.Fatal(err)
			}
		}
	}
	return ids
}

// inPositionOrder: whatever was answered before something else was asked has the smaller position.
func inPositionOrder(ops []porcupine.Operation) bool {
	type decision struct{ call, ret, position int64 }
	var all []decision
	for _, o := range ops {
		switch got := o.Output.(type) {
		case allocated:
			all = append(all, decision{o.Call, o.Return, got.position})
		case refused:
			all = append(all, decision{o.Call, o.Return, got.position})
		}
	}
	latest := map[int64]int64{} // per thousandth of the time, the largest position answered by then
	for _, d := range all {
		latest[d.ret>>20] = max(latest[d.ret>>20], d.position)
	}
	running := int64(0)
	upTo := map[int64]int64{}
	for slice := int64(0); slice <= int64(raceFor*2)>>20; slice++ {
		upTo[slice] = running // answered in slices before this one
		running = max(running, latest[slice])
	}
	for _, d := range all {
		if upTo[d.call>>20] >= d.position {
			return false
		}
	}
	return true
}

// The same POST with one key at the same instant from 20 clients on two replicas has one effect and one answer.
func TestOneKeyFromTwentyClients(t *testing.T) {
	dsn := dbtest.DSN(t)
	var nodes [2]*node
	for i := range nodes {
		nodes[i] = start(t, func(c *service.Config) { c.DatabaseURL, c.NoManagers = dsn, true })
	}
	readyPool(t, nodes[0])
	answers := make([]string, 20)
	go1 := make(chan struct{})
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			<-go1
			status, _, d := nodes[i%2].call("POST", base+"/sessions", doc{"renderer": "race", "model": "m"}, "Idempotency-Key", "the-same")
			answers[i] = fmt.Sprint(status, d["id"], d["resource"])
		})
	}
	close(go1)
	wg.Wait()
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("different answers: %s and %s", answers[0], a)
		}
	}
	if list := nodes[1].must(200, "GET", base+"/sessions", nil)["items"].([]any); len(list) != 1 {
		t.Errorf("%d sessions", len(list))
	}
	if status, _, d := nodes[0].call("POST", base+"/sessions", doc{"renderer": "race", "model": "other"}, "Idempotency-Key", "the-same"); status != 409 || d["code"] != "idempotency_key_reused" {
		t.Errorf("another body under the same key: %d %v", status, d)
	}
	nodes[0].verify()
}
