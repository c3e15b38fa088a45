// Command testrenderer is a renderer as small as one can be, with the habits
// that a launcher must cope with: it may exit at once, write much, start
// children, or take no notice of being asked to stop.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "", "host:port to serve on")
	exitStatus := flag.Int("exit", -1, "exit at once with this status")
	ignoreTerm := flag.Bool("ignore-sigterm", false, "take no notice of SIGTERM")
	ignoreExit := flag.Bool("ignore-exit", false, "answer PUT /v1/exit, but stay")
	lines := flag.Int("lines", 0, "write so many numbered lines to stdout and stderr first")
	child := flag.Bool("child", false, "start a child in a process group of its own, which only SIGKILL ends; GET /child tells its process ID")
	lifeless := flag.Bool("lifeless", false, "be that child")
	flag.Parse()

	if *exitStatus >= 0 {
		fmt.Fprintln(os.Stderr, "testrenderer: exiting at once")
		os.Exit(*exitStatus)
	}
	if *ignoreTerm || *lifeless {
		signal.Ignore(syscall.SIGTERM)
	}
	if *lifeless {
		for {
			time.Sleep(time.Hour)
		}
	}
	for i := 1; i <= *lines; i++ {
		fmt.Fprintf(os.Stdout, "stdout line %d\n", i)
		fmt.Fprintf(os.Stderr, "stderr line %d\n", i)
	}
	childPID := 0
	if *child {
		cmd := exec.Command(os.Args[0], "-lifeless")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			fatal(err)
		}
		childPID = cmd.Process.Pid
	}
	if err := serve(*listen, *ignoreExit, childPID); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "testrenderer:", err)
	os.Exit(1)
}

func serve(address string, ignoreExit bool, childPID int) error {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /registry", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"name": "testrenderer", "version": "1"})
	})
	mux.HandleFunc("PUT /v1/exit", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Println("asked to exit")
		answer(w, map[string]any{})
		if !ignoreExit {
			time.AfterFunc(50*time.Millisecond, func() { os.Exit(0) })
		}
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		env := map[string]string{}
		for _, kv := range os.Environ() {
			name, value, _ := strings.Cut(kv, "=")
			env[name] = value
		}
		answer(w, env)
	})
	mux.HandleFunc("GET /args", func(w http.ResponseWriter, _ *http.Request) { answer(w, os.Args) })
	mux.HandleFunc("GET /pid", func(w http.ResponseWriter, _ *http.Request) { answer(w, os.Getpid()) })
	mux.HandleFunc("GET /child", func(w http.ResponseWriter, _ *http.Request) { answer(w, childPID) })
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return server.Serve(ln)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
