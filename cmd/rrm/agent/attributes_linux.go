package agent

import "syscall"

// attributes give the renderer a session and group of its own, so that no
// terminal's Ctrl-C reaches it, and end it with the agent even if that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
