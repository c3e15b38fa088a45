//go:build unix && !linux

package agent

import "syscall"

// attributes give the renderer a session and group of its own, so that no terminal's Ctrl-C reaches it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
