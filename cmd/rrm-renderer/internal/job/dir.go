package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	dirPrefix = "rrm-renderer-results-"
	newPrefix = "rrm-renderer-new-"
	lockName  = "lock"
)

// resultsDir is a directory for results below the system's temporary one. A
// renderer that is killed cannot remove its own; the next one that starts does,
// which it knows by a lock that ends with its process.
type resultsDir struct {
	path string
	lock *os.File
}

func newResultsDir(parent string) (*resultsDir, error) {
	sweep(parent)
	// Locked before it gets the name that others look for.
	path, err := os.MkdirTemp(parent, newPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a directory for results: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	final := filepath.Join(parent, dirPrefix+strings.TrimPrefix(filepath.Base(path), newPrefix))
	if err == nil {
		err = os.Rename(path, final)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the directory for results: %w", err), os.RemoveAll(path))
	}
	return &resultsDir{final, lock}, nil
}

func (d *resultsDir) remove() error {
	err := os.RemoveAll(d.path)
	if err := errors.Join(err, d.lock.Close()); err != nil {
		return fmt.Errorf("remove the results: %w", err)
	}
	return nil
}

// sweep removes the directories of renderers that are gone. What cannot be
// looked at belongs to somebody else and stays.
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
			_ = os.RemoveAll(path) // the next one tries again
		}
		_ = lock.Close()
	}
}
