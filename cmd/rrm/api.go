package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

const (
	defaultServer         = "http://127.0.0.1:8383"
	defaultRequestTimeout = 30 * time.Second
	maxAnswer             = 64 << 20 // bytes of one JSON answer
)

// api is the service that a command talks to.
type api struct {
	*client.ClientWithResponses                             // bounded by --request-timeout
	streams                     *client.ClientWithResponses // no time limit: events, results
	root                        string                      // of links: the server without the base path
	token                       string
}

// dial makes an api; it connects to nothing yet.
func dial(server, token string, timeout time.Duration) (*api, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, usage("--server: %q is not like http://HOST:PORT", server)
	}
	calls, err := client.New(server, token, &doer{client: &http.Client{Timeout: timeout}, server: server})
	if err != nil {
		return nil, usage("--server: %q is not like http://HOST:PORT", server)
	}
	streams, err := client.New(server, token, &doer{client: &http.Client{}, server: server})
	if err != nil {
		return nil, err
	}
	u.RawQuery, u.Fragment = "", ""
	root := strings.TrimSuffix(strings.TrimSuffix(u.String(), "/"), client.BasePath)
	return &api{ClientWithResponses: calls, streams: streams, root: strings.TrimSuffix(root, "/"), token: token}, nil
}

// link makes a path of an answer, such as a session's url, into an address.
func (a *api) link(path string) string { return a.root + path }

// doer sends a request again when its connection broke, where that is safe:
// reading, what is the same when repeated, and what carries an Idempotency-Key.
type doer struct {
	client *http.Client
	server string
}

const (
	tries    = 3
	tryPause = 200 * time.Millisecond
)

// Do sends the request. An error of the connection is an *unreachable.
func (d *doer) Do(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		res, err := d.client.Do(req)
		if err == nil {
			return res, nil
		}
		if req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		if try == tries || !repeatable(req, err) {
			return nil, &unreachable{server: d.server, cause: err}
		}
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(time.Duration(try) * tryPause):
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, fmt.Errorf("repeat the request: %w", err)
			}
		}
	}
}

func repeatable(req *http.Request, err error) bool {
	var op *net.OpError
	var timeout net.Error
	if errors.As(err, &op) && op.Op == "dial" || errors.As(err, &timeout) && timeout.Timeout() {
		return false // there is nobody, or nobody who answers: say so at once
	}
	return req.Method != http.MethodPost || req.Header.Get("Idempotency-Key") != ""
}

// answer reads a JSON answer; a refusal is a *client.Error. It takes what the
// client's calls return: answer[client.Session](c.api.GetSession(ctx, id)).
func answer[T any](res *http.Response, err error) (v T, raw []byte, fail error) {
	if err != nil {
		return v, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return v, nil, &unreachable{server: res.Request.URL.Host, cause: err}
	}
	if err := client.Failure(res, raw); err != nil {
		return v, nil, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return v, nil, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, nil, &hinted{errors.New("the server's answer cannot be read"), "Is --server the address of an rrm?"}
	}
	return v, raw, nil
}

// page is any list of the API.
type page struct {
	Items      []json.RawMessage `json:"items"`
	NextCursor string            `json:"next_cursor,omitempty"`
}

const maxPage = 500 // items that the API gives at once

// list reads pages until limit items are there (0: all). raw is what -o json prints.
func list[T any](limit int, get func(limit int, cursor string) (*http.Response, error)) (items []T, raw []byte, more bool, err error) {
	var all page
	for {
		n := maxPage
		if limit > 0 {
			n = min(n, limit-len(all.Items))
		}
		p, body, err := answer[page](get(n, all.NextCursor))
		if err != nil {
			return nil, nil, false, err
		}
		first := all.Items == nil
		all.Items, all.NextCursor = append(all.Items, p.Items...), p.NextCursor
		if raw = body; !first {
			if raw, err = json.Marshal(all); err != nil {
				return nil, nil, false, fmt.Errorf("join pages: %w", err)
			}
		}
		if p.NextCursor == "" || limit > 0 && len(all.Items) >= limit {
			break
		}
	}
	for _, one := range all.Items {
		var v T
		if err := json.Unmarshal(one, &v); err != nil {
			return nil, nil, false, fmt.Errorf("read an item: %w", err)
		}
		items = append(items, v)
	}
	return items, raw, all.NextCursor != "", nil
}

// call is one run of a command that talks to a service.
type call struct {
	*program
	ctx  context.Context //nolint:containedctx // a call is one run of a command, which has one context
	cmd  *cobra.Command
	api  *api
	json bool
	wide bool
}

// clientFlags gives a command, and those below it, the flags by which it finds the service.
func clientFlags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.String("server", defaultServer, "address of the service (RRM_SERVER)")
	f.String("token", "", "token of the caller (better: RRM_TOKEN, which no process list shows)")
	f.StringP("output", "o", "table", "table, or json: what the API said (RRM_OUTPUT)")
	f.Duration("request-timeout", defaultRequestTimeout, "longest time for one request (RRM_REQUEST_TIMEOUT)")
	f.Bool("wide", false, "tables with whole identifiers and more columns")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// bind reads flags by their names with '_' for '-', or RRM_ variables, in that order.
func bind(flags *pflag.FlagSet) (*viper.Viper, error) {
	v := viper.New()
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		failed = errors.Join(failed, v.BindPFlag(key, f), v.BindEnv(key, "RRM_"+strings.ToUpper(key)))
	})
	return v, failed
}

// connect reads the client's settings and makes the call.
func (p *program) connect(cmd *cobra.Command) (*call, error) {
	set, err := bind(cmd.Flags())
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	format := set.GetString("output")
	if format != "table" && format != "json" {
		return nil, usage("--output is table or json, not %q", format)
	}
	timeout, err := time.ParseDuration(set.GetString("request_timeout"))
	if err != nil || timeout <= 0 {
		return nil, usage("--request-timeout is a time such as 30s, not %q", set.GetString("request_timeout"))
	}
	a, err := dial(set.GetString("server"), strings.TrimSpace(set.GetString("token")), timeout)
	if err != nil {
		return nil, err
	}
	return &call{program: p, ctx: cmd.Context(), cmd: cmd, api: a, json: format == "json", wide: set.GetBool("wide")}, nil
}

// client makes a command's function from one that talks to a service.
func (p *program) client(f func(c *call, args []string) error) func(*cobra.Command, []string) error {
	return p.run(func(cmd *cobra.Command, args []string) error {
		c, err := p.connect(cmd)
		if err != nil {
			return err
		}
		return f(c, args)
	})
}

// newKey identifies one intent, so that a request whose answer was lost can be sent again.
func newKey() string { return uuid.NewString() }
