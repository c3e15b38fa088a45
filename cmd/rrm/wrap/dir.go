package wrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	dirPrefix = "rrm-wrap-"
	newPrefix = "rrm-new-wrap-"
	lockName  = "lock"
)

// place is a directory for the work of one wrapper. One that is killed cannot
// clean up; the next that starts in the same place does it, knowing by a lock,
// which ends with its process, who is gone.
type place struct {
	path string
	lock *os.File
}

func newPlace(parent string) (*place, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, fmt.Errorf("find the work directory: %w", err)
	}
	sweep(parent)
	// Locked before it has the name that others look for.
	fresh, err := os.MkdirTemp(parent, newPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a work directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(fresh, lockName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	path := filepath.Join(parent, dirPrefix+strings.TrimPrefix(filepath.Base(fresh), newPrefix))
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the work directory: %w", err), os.RemoveAll(fresh))
	}
	return &place{path, lock}, nil
}

func (p *place) remove() error {
	if err := errors.Join(os.RemoveAll(p.path), p.lock.Close()); err != nil {
		return fmt.Errorf("remove the work directory: %w", err)
	}
	return nil
}

// sweep ends what wrappers that are gone left running, and removes what they
// left behind. What cannot be looked at belongs to somebody else and stays.
func sweep(parent string) {
	old, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range old {
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			killMarked(path)
			_ = os.RemoveAll(path) // the next one tries again
		}
		_ = lock.Close()
	}
}
