package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

type phase string

const (
	phaseStarting phase = "starting" // written before the process exists
	phaseRunning  phase = "running"
	phaseEnded    phase = "ended"
)

// record is what is kept of a resource in its directory, to find it again.
type record struct {
	Resource  domain.ResourceID `json:"resource"`
	Service   string            `json:"service"`
	Phase     phase             `json:"phase"`
	PID       int               `json:"pid,omitempty"`
	StartTime uint64            `json:"start_time,omitempty"` // clock ticks since boot
	Boot      string            `json:"boot"`
	Port      int               `json:"port"`
	Started   time.Time         `json:"started"`
	Ended     time.Time         `json:"ended,omitzero"`
	Reason    string            `json:"reason,omitempty"` // how it ended
}

func (l *Launcher) dir(id domain.ResourceID) string { return filepath.Join(l.opts.Dir, string(id)) }

func (l *Launcher) recordPath(id domain.ResourceID) string {
	return filepath.Join(l.dir(id), "record.json")
}

// read gives the record of a resource. One that cannot be understood, or that
// another service wrote, counts as none: the process table knows better.
func (l *Launcher) read(id domain.ResourceID) (rec record, known bool, err error) {
	b, err := os.ReadFile(l.recordPath(id))
	if errors.Is(err, os.ErrNotExist) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, fmt.Errorf("read record of resource %s: %w", id, err)
	}
	if json.Unmarshal(b, &rec) != nil || rec.Resource != id || rec.Service != l.opts.Service {
		return record{}, false, nil
	}
	return rec, true, nil
}

// write replaces the record in one step. It is not synced to the disk: if the
// machine goes down, so does the process.
func (l *Launcher) write(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode record of resource %s: %w", rec.Resource, err)
	}
	path := l.recordPath(rec.Resource)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write record of resource %s: %w", rec.Resource, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write record of resource %s: %w", rec.Resource, err)
	}
	return nil
}

var errBusy = errors.New("another launch or stop of this resource is under way")

// tryLock takes the resource's lock, which also holds against other rrm
// processes over the same directory, or says errBusy. It makes the directory.
func (l *Launcher) tryLock(id domain.ResourceID) (unlock func(), err error) {
	if err := os.MkdirAll(l.dir(id), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of resource %s: %w", id, err)
	}
	f, err := os.OpenFile(filepath.Join(l.dir(id), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of resource %s: %w", id, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil && sameFile(f) {
		return func() { _ = f.Close() }, nil
	}
	_ = f.Close()
	if err == nil || errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errBusy
	}
	return nil, fmt.Errorf("lock resource %s: %w", id, err)
}

// sameFile tells whether f is still what its name means: the directory may
// have been removed, and made again by another, while f waited to be locked.
func sameFile(f *os.File) bool {
	mine, err1 := f.Stat()
	now, err2 := os.Stat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(mine, now)
}

// lock waits for the resource's lock. Nobody holds it for longer than a
// process takes to start, so it is asked for again and again.
func (l *Launcher) lock(ctx context.Context, id domain.ResourceID) (unlock func(), err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		unlock, err := l.tryLock(id)
		if !errors.Is(err, errBusy) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock resource %s: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// found is what is known of a resource: its record, made good from the process
// table where that knows more, and whether its process runs.
type found struct {
	record
	known bool
	alive bool
}

// find looks for a resource's process. The caller holds its lock.
func (l *Launcher) find(id domain.ResourceID) (found, error) {
	rec, known, err := l.read(id)
	if err != nil {
		return found{}, err
	}
	if known && rec.Phase == phaseEnded {
		return found{rec, true, false}, nil
	}
	if known && rec.Phase == phaseRunning {
		alive, err := l.runs(rec)
		return found{rec, true, alive}, err
	}
	// rrm ended between record and process, or the record is lost.
	all, err := scan(l.opts.Service)
	if err != nil {
		return found{}, err
	}
	m, ok := leader(all, id)
	if !ok {
		return found{rec, known, false}, nil
	}
	rec = l.adopted(m, rec)
	return found{rec, true, true}, l.write(rec)
}

// runs tells whether the process of a running record still does.
func (l *Launcher) runs(rec record) (bool, error) {
	if rec.Boot != l.boot {
		return false, nil
	}
	return process{rec.PID, rec.StartTime}.alive()
}

// adopted is the record of a process that was found without one, or with half of one.
func (l *Launcher) adopted(m marked, rec record) record {
	l.log.Info("found a resource that was not on record", "resource", m.resource, "pid", m.pid)
	return record{
		Resource: m.resource, Service: l.opts.Service, Phase: phaseRunning, PID: m.pid, StartTime: m.start,
		Boot: l.boot, Port: m.port, Started: rec.Started,
	}
}

// prune removes the directories of the resources that ended longest ago.
func (l *Launcher) prune(ctx context.Context) {
	entries, err := os.ReadDir(l.opts.Dir)
	if err != nil || len(entries) <= l.opts.KeepEnded {
		return
	}
	var ended []record
	for _, e := range entries {
		id := domain.ResourceID(e.Name())
		if checkID(id) != nil || ctx.Err() != nil {
			continue
		}
		if rec, known, err := l.read(id); err == nil && known && rec.Phase == phaseEnded {
			ended = append(ended, rec)
		}
	}
	slices.SortFunc(ended, func(a, b record) int { return b.Ended.Compare(a.Ended) })
	for _, rec := range ended[min(len(ended), l.opts.KeepEnded):] {
		unlock, err := l.tryLock(rec.Resource)
		if err != nil {
			continue // somebody uses it; next time
		}
		if now, known, err := l.read(rec.Resource); err == nil && known && now.Phase == phaseEnded {
			if err := os.RemoveAll(l.dir(rec.Resource)); err != nil {
				l.log.Warn("directory of an ended resource not removed", "resource", rec.Resource, "error", err)
			}
		}
		unlock()
	}
}
