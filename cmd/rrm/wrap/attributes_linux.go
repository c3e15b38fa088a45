package wrap

import "syscall"

// attributes give a run a session and group of its own, without a terminal
// that it could ask, and end it with the wrapper even if that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
