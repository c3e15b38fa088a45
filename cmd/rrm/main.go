// Command rrm is the Rendering Resource Manager: the service (rrm serve) and
// the command line that talks to one.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// impatience is how long after a signal a second one ends the program at once.
// Some who pass signals on send the same one twice.
const impatience = 300 * time.Millisecond

// gcPercent makes the collector run less often than by default: a fifth of the service's processor time, for memory
// up to five times of what is live, which is tens of megabytes. The variable GOGC goes before it.
const gcPercent = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(impatience, stop) })
	os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Main runs one command until it is done or ctx ends, and returns the exit
// code: 0, 1 after a failure, 2 for a wrong command line or setting, 3 where
// the service refused, 4 where it could not be reached.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return p.report(ctx, cmd, err)
}

// program is one run of the command line.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	began          bool // the command line was understood; what fails after that is no usage error
}
