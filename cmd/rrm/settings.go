package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/viper"
)

// storeSettings say where the database is.
type storeSettings struct {
	DataDir     string `mapstructure:"data_dir"`
	DatabaseURL string `mapstructure:"database_url"`
	LogLevel    string `mapstructure:"log_level"`
	LogFormat   string `mapstructure:"log_format"`
}

// serveSettings are all that the service can be told.
type serveSettings struct {
	storeSettings `mapstructure:",squash"`

	Listen        string        `mapstructure:"listen"`
	Demo          bool          `mapstructure:"demo"`
	DemoArgs      string        `mapstructure:"demo_args"`
	CORSOrigins   []string      `mapstructure:"cors_origins"`
	Hosts         []string      `mapstructure:"hosts"`
	CallbackHosts []string      `mapstructure:"callback_hosts"`
	RegisterAllow []string      `mapstructure:"register_allow"`
	Heartbeat     time.Duration `mapstructure:"heartbeat"`
	MaxResultMiB  int64         `mapstructure:"max_result_mib"`
	SlurmSites    string        `mapstructure:"slurm_sites"`
	UnicoreSite   string        `mapstructure:"unicore_site"`
	V1Anonymous   bool          `mapstructure:"v1_anonymous"`
	V1Dialect     string        `mapstructure:"v1_dialect"`
	V1Launcher    string        `mapstructure:"v1_launcher"`
	V1Lease       time.Duration `mapstructure:"v1_lease"`
	V1Public      string        `mapstructure:"v1_public"`
	Keep          time.Duration `mapstructure:"keep"`
	Managers      bool          `mapstructure:"managers"`
}

// storeFlags are the settings of every command that works on the database itself.
func storeFlags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.String("config", "", "YAML `FILE` with settings, named as the flags with '_' for '-' (RRM_CONFIG)")
	f.String("data-dir", "", "where the embedded Postgres and the renderers' output live (default $XDG_STATE_HOME/rrm, ~/.local/state/rrm)")
	f.String("database-url", "", "Postgres server to use instead of an own one (better: RRM_DATABASE_URL, which no process list shows)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
	return cmd
}

func serveFlags(cmd *cobra.Command) *cobra.Command {
	f := storeFlags(cmd).Flags()
	f.String("listen", "127.0.0.1:8383", "`HOST:PORT` to serve on; port 0 takes a free one")
	f.Bool("demo", false, "configure the renderer \"demo\", unless there is one of that name")
	f.String("demo-args", "", "more arguments for the demonstration renderer")
	f.StringSlice("cors-origins", nil, "origins of browsers' pages that may use the service, such as https://viz.example.org")
	f.StringSlice("hosts", nil, "names, beside localhost, by which a service without tokens may be called")
	f.StringSlice("callback-hosts", nil, "hosts that a job's callback_url and a pool's policy webhook may name")
	f.StringSlice("register-allow", nil, "networks and hosts whose addresses may register as resources, such as 10.7.0.0/16 (default: this machine while there are no tokens, else none)")
	f.Duration("heartbeat", 5*time.Second, "how often resources that registered themselves send a heartbeat; after three missed one is lost")
	f.String("slurm-sites", "", "JSON `FILE` with the clusters of the slurm launcher; docs/slurm.md")
	f.String("unicore-site", "", "JSON `FILE` with the site of the unicore launcher; docs/unicore.md")
	f.Bool("v1-anonymous", false, "let clients without a token use version 1 of the API although there are tokens; docs/v1.md")
	f.String("v1-dialect", "auto", "whose status codes version 1 of the API uses: auto, cookie or session_id")
	f.String("v1-launcher", "local", "launcher of renderers that are configured through version 1 of the API")
	f.Duration("v1-lease", 5*time.Minute, "how long a session of version 1 of the API lasts without a look at its status")
	f.String("v1-public", "", "`HOST[:PORT][/PREFIX]` by which clients of version 1 of the API come in, where a proxy hides it")
	f.Int64("max-result-mib", 256, "largest result of a job, in MiB")
	f.Duration("keep", 24*time.Hour, "how long results, and answers to repeated commands, are kept")
	f.Bool("managers", true, "start, watch and feed renderers; false: serve only, another replica does that")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// load reads a command's settings: a flag goes before a variable, that before
// the file. Whatever is wrong with them is a *usageError.
func load[T any](cmd *cobra.Command) (set T, err error) {
	v, err := bind(cmd.Flags())
	if err != nil {
		return set, fmt.Errorf("read settings: %w", err)
	}
	if file := v.GetString("config"); file != "" {
		if err := readConfig(v, file); err != nil {
			return set, err
		}
	}
	hooks := mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), splitList)
	if err := v.Unmarshal(&set, viper.DecodeHook(hooks)); err != nil {
		return set, usage("a setting is wrong: %s", decodeReason(err))
	}
	return set, nil
}

// serviceKeys are what a file may say: one file serves all commands.
func serviceKeys() []string {
	var keys []string
	v, err := bind(serveFlags(&cobra.Command{}).LocalFlags())
	if err != nil {
		return nil
	}
	for _, key := range v.AllKeys() {
		if key != "config" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func readConfig(v *viper.Viper, file string) error {
	if _, err := os.Stat(file); err != nil {
		return noSuchFile(file, err)
	}
	in := viper.NewWithOptions(viper.KeyDelimiter("\x00")) // a dot in a key is a letter of it
	in.SetConfigFile(file)
	in.SetConfigType("yaml")
	if err := in.ReadInConfig(); err != nil {
		return usage("%s is not YAML: %s", file, strings.TrimPrefix(decodeReason(err), "While parsing config: "))
	}
	known := serviceKeys()
	for _, key := range slices.Sorted(slices.Values(in.AllKeys())) {
		if !slices.Contains(known, key) {
			return usage("%s: there is no setting %q; there are: %s", file, key, strings.Join(known, ", "))
		}
	}
	if err := v.MergeConfigMap(in.AllSettings()); err != nil {
		return usage("%s: %s", file, decodeReason(err))
	}
	return nil
}

// decodeReason takes the library's lead away from its message.
func decodeReason(err error) string {
	s := err.Error()
	for _, lead := range []string{"decoding failed due to the following error(s):", "1 error(s) decoding:"} {
		s = strings.TrimPrefix(strings.TrimSpace(s), lead)
	}
	return strings.TrimSpace(strings.ReplaceAll(s, "\n", " "))
}

// splitList reads a list from text with commas, as variables have it.
func splitList(_, to reflect.Type, value any) (any, error) {
	text, ok := value.(string)
	if !ok || to != reflect.TypeFor[[]string]() {
		return value, nil
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }), nil
}

// check refuses settings that cannot be meant, and finds the data directory.
func (s *storeSettings) check() error {
	if s.DataDir == "" {
		dir, err := defaultDataDir()
		if err != nil {
			return err
		}
		s.DataDir = dir
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return usage("log_level is debug, info, warn or error, not %q", s.LogLevel)
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		return usage("log_format is text or json, not %q", s.LogFormat)
	}
	return nil
}

func defaultDataDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) { // the base directory specification: a relative one is ignored
		return filepath.Join(dir, "rrm"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usage("there is no home directory to keep data in: give --data-dir")
	}
	return filepath.Join(home, ".local", "state", "rrm"), nil
}
