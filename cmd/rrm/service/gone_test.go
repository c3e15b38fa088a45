package service_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

func durable(t *testing.T) *postgres.Server {
	t.Helper()
	return dbtest.Durable(t)
}

// freeze stops every process of a Postgres: to its clients it is as if the machine were gone.
func freeze(t *testing.T, s *postgres.Server) {
	t.Helper()
	signalAll(t, s, syscall.SIGSTOP)
	t.Cleanup(func() { thaw(t, s) })
}

func thaw(t *testing.T, s *postgres.Server) {
	t.Helper()
	signalAll(t, s, syscall.SIGCONT)
}

func signalAll(t *testing.T, s *postgres.Server, sig syscall.Signal) {
	t.Helper()
	main := s.PID()
	if main == 0 {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if pid == main || len(fields) > 1 && fields[1] == strconv.Itoa(main) {
			_ = syscall.Kill(pid, sig)
		}
	}
}
