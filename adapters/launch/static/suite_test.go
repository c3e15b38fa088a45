package static

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/domain"
)

const suiteEvery = 200 * time.Millisecond

// agents are the machines of the suite: each runs its renderer in a process, sends
// heartbeats by the clock of the wall, and ends its renderer when it hears that it is to stop.
type agents struct {
	*machines
	mu     sync.Mutex
	killed map[domain.ResourceID]func()
}

// TestSuite runs of the suite what concerns a launcher that starts nothing: that a resource
// is seen running, stops when it is told to (also by a new launcher, also twice), is seen as gone when its machine
// dies, and that what never was is gone. That launching, output, environment, arguments and children are not in it has
// its reason: here they are the business of who registers. rrm agent has tests of its own for them.
func TestSuite(t *testing.T) {
	program := launchtest.Program(t, t.TempDir())
	var worlds sync.Map // *Launcher -> *agents
	launchtest.Run(t, func(t *testing.T) launchtest.Launcher {
		a := &agents{machines: newMachines(), killed: map[domain.ResourceID]func(){}}
		a.wall = true
		l := New(a.machines, suiteEvery)
		worlds.Store(l, a)
		return l
	}, launchtest.Options{
		Bring: func(t *testing.T, l launchtest.Launcher, spec domain.LaunchSpec) domain.Launched {
			w, _ := worlds.Load(l)
			a := w.(*agents)
			return a.bring(t, program, spec)
		},
		Again: func(t *testing.T, first launchtest.Launcher) launchtest.Launcher {
			w, _ := worlds.Load(first)
			l := New(w.(*agents).machines, suiteEvery)
			worlds.Store(l, w)
			return l
		},
		Kill: func(t *testing.T, r domain.Launched) {
			worlds.Range(func(_, w any) bool {
				a := w.(*agents)
				a.mu.Lock()
				defer a.mu.Unlock()
				if kill := a.killed[r.Resource]; kill != nil {
					kill()
				}
				return true
			})
		},
	})
}

// bring is what rrm agent does, in little.
func (a *agents) bring(t *testing.T, program string, spec domain.LaunchSpec) domain.Launched {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	args := strings.Fields(strings.ReplaceAll(spec.Renderer.ProcessFormat, "${rest_hostname}:${rest_port}", address))
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	done, dead := make(chan struct{}), make(chan struct{})
	a.mu.Lock()
	a.killed[spec.Resource] = sync.OnceFunc(func() { close(dead) })
	a.mu.Unlock()
	a.beat(spec.Resource)
	go func() {
		defer close(done)
		defer end()
		beat := time.NewTicker(suiteEvery)
		defer beat.Stop()
		for {
			select {
			case <-dead: // the machine as a whole: nothing is deregistered
				return
			case <-beat.C:
			}
			a.machines.mu.Lock()
			asked := a.asked[spec.Resource] > 0
			a.machines.mu.Unlock()
			if asked {
				end()
				a.leave(spec.Resource)
				return
			}
			a.beat(spec.Resource)
		}
	}()
	t.Cleanup(func() {
		a.mu.Lock()
		a.killed[spec.Resource]()
		a.mu.Unlock()
		<-done
	})
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return domain.Launched{Resource: spec.Resource, Address: address, Node: node}
}
