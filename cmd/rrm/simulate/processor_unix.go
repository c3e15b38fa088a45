//go:build unix

package simulate

import (
	"syscall"
	"time"
)

// Processor is the processor time that this process has used, on all cores, the
// collection of garbage and the system's work for it included.
func Processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
