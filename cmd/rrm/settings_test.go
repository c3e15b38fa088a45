package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func loadServe(t *testing.T, args ...string) (serveSettings, error) {
	t.Helper()
	cmd := serveFlags(&cobra.Command{Use: "serve"})
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	set, err := load[serveSettings](cmd)
	if err != nil {
		return set, err
	}
	err = set.checkServe()
	return set, err
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rrm.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A flag goes before a variable, a variable before the file, the file before the default.
func TestPrecedenceOfSettings(t *testing.T) {
	config := file(t, "listen: 127.0.0.1:1\nlog_level: warn\nkeep: 2h\ncors_origins: [https://a.example, https://b.example]\ndemo: true\nmanagers: false\n")
	for _, c := range []struct {
		name, env, flag, want string
	}{
		{"default", "", "", "127.0.0.1:8383"},
		{"file", "", "--config=" + config, "127.0.0.1:1"},
		{"variable", "127.0.0.1:2", "--config=" + config, "127.0.0.1:2"},
		{"flag", "127.0.0.1:2", "--config=" + config + " --listen=127.0.0.1:3", "127.0.0.1:3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("RRM_LISTEN", c.env)
			set, err := loadServe(t, strings.Fields(c.flag)...)
			if err != nil || set.Listen != c.want {
				t.Errorf("%s, %v; want %s", set.Listen, err, c.want)
			}
		})
	}
	t.Setenv("RRM_CONFIG", config)
	t.Setenv("RRM_CALLBACK_HOSTS", "one, two")
	t.Setenv("RRM_DATA_DIR", "/somewhere")
	set, err := loadServe(t, "--log-level", "debug")
	if err != nil || set.LogLevel != "debug" || set.Keep != 2*time.Hour || !set.Demo || set.Managers || set.DataDir != "/somewhere" ||
		!slices.Equal(set.CORSOrigins, []string{"https://a.example", "https://b.example"}) || !slices.Equal(set.CallbackHosts, []string{"one", "two"}) {
		t.Errorf("%+v %v", set, err)
	}
	// Other commands read the same file and take what is theirs.
	cmd := storeFlags(&cobra.Command{Use: "migrate"})
	if err := cmd.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	store, err := load[storeSettings](cmd)
	if err != nil || store.LogLevel != "warn" || store.DataDir != "/somewhere" {
		t.Errorf("%+v %v", store, err)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, c := range []struct{ config, env, flags, want string }{
		{"liste: 127.0.0.1:1\n", "", "", `there is no setting "liste"; there are: callback_hosts, cors_origins`},
		{"listen: {host: x}\n", "", "", "listen"},
		{"data-dir: x\n", "", "", `"data-dir"`},
		{"listen: [\n", "", "", "is not YAML"},
		{"keep: soon\n", "", "", "keep"},
		{"demo: maybe\n", "", "", "demo"},
		{"log_level: loud\n", "", "", "log_level"},
		{"", "RRM_DEMO=maybe", "", "demo"},
		{"", "RRM_MAX_RESULT_MIB=many", "", "max_result_mib"},
		{"", "RRM_LOG_FORMAT=xml", "", "log_format"},
		{"", "", "--max-result-mib=0", "max_result_mib is"},
		{"", "", "--keep=1s", "keep is at least"},
		{"", "", "--cors-origins=example.org", "cors_origins"},
		{"", "", "--config=/no/such/file", "there is no file"},
		{"", "", "--listen=8383", "HOST:PORT"},
		{"", "", "--v1-dialect=french", "v1_dialect is"},
		{"", "", "--v1-launcher=rocket", "v1_launcher is"},
		{"v1_lease: 1ms\n", "", "", "v1_lease is"},
		{"", "RRM_V1_PUBLIC=https://viz.example.org", "", "v1_public is"},
	} {
		t.Run(c.want, func(t *testing.T) {
			args := strings.Fields(c.flags)
			if c.config != "" {
				args = append(args, "--config", file(t, c.config))
			}
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			_, err := loadServe(t, args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %s", err, c.want)
			}
			if code := (&program{began: true}).exitCode(err); code != exitUsage {
				t.Errorf("exit code %d: %v", code, err)
			}
		})
	}
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("HOME", "/home/alice")
	for _, c := range []struct{ flag, env, state, want string }{
		{"/flag", "/env", "/state", "/flag"}, {"", "/env", "/state", "/env"},
		{"", "", "/state", "/state/rrm"}, {"", "", "", "/home/alice/.local/state/rrm"}, {"", "", "relative", "/home/alice/.local/state/rrm"},
	} {
		t.Setenv("XDG_STATE_HOME", c.state)
		t.Setenv("RRM_DATA_DIR", c.env)
		var args []string
		if c.flag != "" {
			args = []string{"--data-dir", c.flag}
		}
		if set, err := loadServe(t, args...); err != nil || set.DataDir != c.want {
			t.Errorf("%+v: %s %v", c, set.DataDir, err)
		}
	}
}

// A password of the database is in no message.
func TestPasswordsAreNotShown(t *testing.T) {
	t.Setenv("RRM_DATABASE_URL", "postgres://rrm:sesame@127.0.0.1:1/rrm?connect_timeout=1")
	for _, args := range []string{"serve --listen 127.0.0.1:0", "migrate", "token list", "verify"} {
		got := rrm(t, append(strings.Fields(args), "--data-dir", t.TempDir())...)
		if got.code != exitFailure || !strings.Contains(got.err, "127.0.0.1:1") || strings.Contains(got.out+got.err, "sesame") {
			t.Errorf("rrm %s: %+v", args, got)
		}
	}
}
