package pool_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// batched follows a world with a state that commits only now and then, as the
// service does: within a batch entities are changed in place. It must decide
// the same, and must be what it was when a batch is taken back.
type batched struct {
	state  *pool.State
	rows   map[pool.Key]string // at the last commit
	orders []string
	batch  []decided
	size   int // of a batch
}

// decided is a command of the batch under way and what came of it.
type decided struct {
	head   int64
	given  pool.Given
	events string
}

func newBatched(size int) *batched {
	s := pool.NewState()
	return &batched{state: s, rows: pool.Rows(s), size: size}
}

func (b *batched) follow(w *world, head int64, g pool.Given, events []pool.Recorded) {
	w.Helper()
	b.batch = append(b.batch, decided{head, g, written(w, events)})
	b.again(w, b.batch[len(b.batch)-1])
	if len(b.batch) < b.size {
		return
	}
	b.state.Rollback()
	if rows := pool.Rows(b.state); !maps.Equal(rows, b.rows) {
		w.Fatalf("a batch that ends with %#v is not taken back whole:\n%v\n%v", g.Command, b.rows, rows)
	}
	if orders := pool.Orders(b.state); !slices.Equal(orders, b.orders) {
		w.Fatalf("a batch that ends with %#v is not taken back whole:\n%q\n%q", g.Command, b.orders, orders)
	}
	for _, d := range b.batch {
		b.again(w, d)
	}
	b.state.Commit()
	b.batch, b.rows, b.orders = b.batch[:0], pool.Rows(b.state), pool.Orders(b.state)
	if rows := pool.Rows(w.state); !maps.Equal(rows, b.rows) {
		w.Fatalf("after %#v in a batch the rows are not those of one by one:\n%v\n%v", g.Command, b.rows, rows)
	}
	if orders := pool.Orders(w.state); !slices.Equal(orders, b.orders) {
		w.Fatalf("after %#v in a batch the orders are not those of one by one:\n%q\n%q", g.Command, b.orders, orders)
	}
}

func (b *batched) again(w *world, d decided) {
	w.Helper()
	events, err := b.state.Decide(d.head, d.given)
	if got := written(w, events); got != d.events {
		w.Fatalf("%#v in a batch gives (%v)\n%s\none by one\n%s", d.given.Command, fmt.Sprint(err), got, d.events)
	}
}

// Whoever uses a resource that goes is told, also where the events that tell
// them take them off the resource one by one, in place.
func TestUsersOfAResourceThatGoesInOneBatch(t *testing.T) {
	for name, end := range map[string]func(domain.ResourceID) pool.Command{
		"stopped": func(id domain.ResourceID) pool.Command { return pool.StopResource{Resource: id} },
		"drained": func(id domain.ResourceID) pool.Command { return pool.DrainResource{Resource: id} },
		"failed":  func(id domain.ResourceID) pool.Command { return pool.ReportFailed{Resource: id, Code: "hung"} },
		"lost":    func(id domain.ResourceID) pool.Command { return pool.ReportLost{Resource: id} },
		"unloaded": func(id domain.ResourceID) pool.Command {
			return pool.ReportModelFailed{Resource: id, Model: "A", Code: "unreachable"}
		},
	} {
		w := newWorld(t)
		w.also = newBatched(7)
		w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 1), slots(3))})
		w.up()
		for len(w.also.batch) != 0 {
			w.do(pool.Tick{})
		}
		w.do(book("s1", "A"), book("s2", "A", moves), job("j1", "A"))
		w.do(end(w.made["demo"][0]))
		if n := len(w.also.batch); n != 4 {
			t.Errorf("%s: the batch has %d commands", name, n)
		}
	}
}
