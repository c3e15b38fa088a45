package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// V1 is what the service is told of the predecessor's API. Its zero value is good.
type V1 struct {
	Anonymous    bool            // clients without a token may use it although there are tokens
	Dialect      string          // of status codes: auto, cookie or session_id; empty: auto
	Launcher     string          // of renderers that are configured through it; empty: local
	Lease        time.Duration   // of its sessions; 0: 300 s
	Public       string          // HOST[:PORT][/PREFIX] by which clients come in; empty: as their requests say
	ClientConfig json.RawMessage // answered at /config.json; nil: almost nothing
}

// withV1 puts the predecessor's API beside version 2, also behind any prefix. Who
// asks for anything else asks version 2.
func (s *Service) withV1(api http.Handler, loopback bool) (http.Handler, *rrmv1.Server, error) {
	v1, err := rrmv1.New(rrmv1.Config{
		Commands: s.Handler, Views: s.Reader, Tokens: s.Tokens, Forward: forwarderV1{newForwarder()},
		Frames: frames{}, Outputs: outputsV1{outputs{s.launchers}}, Credential: s.keepCredential(),
		Open: loopback, Anonymous: s.cfg.V1.Anonymous, Hosts: s.cfg.Hosts, Origins: s.cfg.CORSOrigins,
		Dialect: s.cfg.V1.Dialect, Launcher: s.cfg.V1.Launcher, Lease: s.cfg.V1.Lease, Public: s.cfg.V1.Public,
		ClientConfig: s.cfg.V1.ClientConfig, Logger: s.cfg.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rrmv1.Match(r) {
			v1.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	}), v1, nil
}

// forwarderV1 passes the requests of version 1 on as those of version 2.
type forwarderV1 struct{ forwarder }

func (f forwarderV1) Forward(w http.ResponseWriter, r *http.Request, to rrmv1.Target, onActivity func(), fail func(status int, code, reason string)) {
	r = r.WithContext(context.WithValue(r.Context(), failKey{}, fail))
	f.proxy.ServeHTTP(w, r, to.Address, to.Prefix, to.Session, to.Model, onActivity)
}

// frames takes pictures of sessions.
type frames struct{}

func (frames) Frame(ctx context.Context, address string, session domain.SessionID, model domain.ModelKey) ([]byte, error) {
	b, err := renderer.New(address, renderer.Options{}).ImageJPEG(ctx, session, model, nil)
	var said *renderer.Error
	if errors.As(err, &said) && (said.Status == http.StatusNotFound || said.Status == http.StatusMethodNotAllowed) {
		return nil, domain.NotFound("picture", string(session))
	}
	return b, err
}

// outputsV1 tells, besides outputs, what launchers know of their resources.
type outputsV1 struct{ outputs }

// informer is a launcher that can tell of a resource in its own words, as Slurm's can.
type informer interface {
	Info(ctx context.Context, r domain.Launched) (string, error)
}

func (o outputsV1) Info(ctx context.Context, r pool.Resource) (string, error) {
	if l, ok := o.launchers[r.Launcher].(informer); ok {
		return l.Info(ctx, domain.Launched{Resource: r.ID, Handle: r.Handle, Address: r.Address, Node: r.Node})
	}
	// What a launcher needs to find its resource again is what it knows: a process and its start.
	var known map[string]any
	if len(r.Handle) == 0 || json.Unmarshal(r.Handle, &known) != nil {
		return "", nil
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(known)) {
		fmt.Fprintf(&b, "%s=%v\n", name, known[name])
	}
	return b.String(), nil
}
