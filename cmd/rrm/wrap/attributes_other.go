//go:build unix && !linux

package wrap

import "syscall"

// attributes give a run a session and group of its own, without a terminal that it could ask.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
