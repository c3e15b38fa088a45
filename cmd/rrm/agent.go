package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/agent"
)

func (p *program) agentCommand() *cobra.Command {
	var set agent.Settings
	var address, ports string
	var labels []string
	cmd := &cobra.Command{
		Use:   "agent [flags] -- COMMAND ARGS...",
		Short: "Run a renderer on this machine and register it with a service",
		Long: `Starts COMMAND, waits until it answers, registers it as a resource, and keeps it alive: sends heartbeats, starts it again when
it dies, registers it anew when the service counts it as gone. On SIGTERM (Ctrl-C), or when the resource is drained or stopped, it
ends the renderer, deregisters it and exits with 0. No shell is involved; in an argument these are replaced:
  ${rest_hostname}  ${rest_port}

The renderer's settings must have the launcher static, and the service must allow the address (rrm serve --register-allow).
It takes an operator's token (RRM_TOKEN). docs/static.md tells all.`,
		Example: `  rrm agent --renderer brayns -- braynsService --uri '${rest_hostname}:${rest_port}'
  rrm agent --server http://rrm.example.org:8383 --renderer brayns --address gpu7 --port-range 5000-5009 --slots 2 \
    --label gpu=a100 -- braynsService --uri '${rest_hostname}:${rest_port}'`,
		RunE: p.client(func(c *call, args []string) error {
			set.Command = args
			if err := agentSettings(c, &set, address, ports, labels); err != nil {
				return err
			}
			var wrong *agent.SettingError
			if err := agent.Run(c.ctx, set, c.stdout); errors.As(err, &wrong) {
				return usage("%s", wrong.Reason)
			} else if err != nil {
				return err
			}
			return nil
		}),
	}
	f := clientFlags(cmd).Flags()
	f.SetInterspersed(false) // what comes after the program is the program's
	f.StringVar(&set.Renderer, "renderer", "", "`NAME` of the renderer that COMMAND is")
	f.StringVar(&address, "address", "", "`HOST[:PORT]` where the service reaches the renderer (default: this machine's address on the way to the service, and a free port)")
	f.StringVar(&ports, "port-range", "", "`LOW-HIGH`: ports to choose from")
	f.IntVar(&set.Slots, "slots", 0, "sessions and jobs that it serves at once (default: the renderer's setting)")
	f.StringArrayVar(&labels, "label", nil, "`KEY=VALUE` to tell it by; may be repeated")
	f.StringVar(&set.Node, "node", "", "`NAME` of the machine, for people (default: its host name)")
	f.DurationVar(&set.Wait, "wait", 30*time.Second, "how long to wait at first for a service that does not answer")
	f.DurationVar(&set.Drain, "drain", 0, "how long its work may go on after SIGTERM (0: it is moved or lost)")
	_ = cmd.RegisterFlagCompletionFunc("renderer", p.completeRenderers(1))
	return cmd
}

const maxAgentSlots = 1024

func agentSettings(c *call, set *agent.Settings, address, ports string, labels []string) (err error) {
	switch {
	case set.Renderer == "":
		return usage("agent needs --renderer NAME")
	case set.Slots < 0 || set.Slots > maxAgentSlots:
		return usage("--slots is 1 to %d, not %d", maxAgentSlots, set.Slots)
	case set.Wait < 0 || set.Drain < 0:
		return usage("--wait and --drain are times such as 30s")
	}
	if set.Labels, err = pairs("--label", labels); err != nil {
		return err
	}
	if set.Host, set.Port, err = hostAndPort(c.ctx, address, c.api.root); err != nil {
		return err
	}
	if ports != "" {
		low, high, ok := strings.Cut(ports, "-")
		var err1, err2 error
		set.Low, err1 = strconv.Atoi(low)
		set.High, err2 = strconv.Atoi(high)
		if !ok || err1 != nil || err2 != nil || set.Low < 1 {
			return usage("--port-range is LOW-HIGH such as 5000-5009, not %q", ports)
		}
	}
	out := shared(c.stderr)
	set.API, set.Output = c.api.ClientInterface, out
	set.Log = slog.New(slog.NewTextHandler(out, nil))
	return nil
}

// pairs reads KEY=VALUE texts.
func pairs(flag string, all []string) (map[string]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, one := range all {
		key, value, ok := strings.Cut(one, "=")
		if !ok || key == "" {
			return nil, usage("%s is KEY=VALUE, not %q", flag, one)
		}
		out[key] = value
	}
	return out, nil
}

// hostAndPort reads --address; what is left out of it is this machine's address as the server's side of it shows.
func hostAndPort(ctx context.Context, address, server string) (host string, port int, err error) {
	if address == "" {
		u, err := url.Parse(server)
		if err != nil {
			return "", 0, fmt.Errorf("read the server's address: %w", err)
		}
		at := u.Host
		if u.Port() == "" {
			at = net.JoinHostPort(u.Hostname(), "80") // any port: nothing is sent
		}
		if host, err = agent.OwnAddress(ctx, at); err != nil {
			return "", 0, &hinted{err, "--address HOST says where the service reaches this machine."}
		}
		return host, 0, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil { // there is no port in it
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", 0, usage("--address is HOST or HOST:PORT, not %q", address)
		}
		return host, 0, nil
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 || host == "" {
		return "", 0, usage("--address is HOST or HOST:PORT, not %q", address)
	}
	return host, port, nil
}

// shared lets the renderer and the agent write to the same place. A file is
// given to the renderer as it is; anything else is written to by one at a time.
func shared(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		return f
	}
	return &oneAtATime{w: w}
}

type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

// Write passes p on when nobody else writes.
func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}
