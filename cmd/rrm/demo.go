package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// demoTime bounds the whole story.
const demoTime = 2 * time.Minute

func (p *program) demoCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "demo", Short: "Tell the main story: sessions and jobs on a pool that grows from zero and shrinks to it", Args: needs(0, 0),
		Long: `Tells the main story on the renderer "demo", in under two minutes, checks every step of it, and writes pictures.
If nothing answers at --server it starts a service of its own for the time of the story.`,
		RunE: p.client(func(c *call, _ []string) error { return c.demo(out) }),
	}
	cmd.Flags().StringVar(&out, "out", "out", "`DIR` for the pictures")
	return clientFlags(cmd)
}

// broken is a step of the story that does not hold.
type broken struct{ expected, found string }

func (b *broken) Error() string {
	return fmt.Sprintf("the story does not hold: expected %s, found %s", b.expected, b.found)
}

// expect fails the story unless what it tells is so.
func expect(holds bool, expected, found string, args ...any) error {
	if holds {
		return nil
	}
	return &broken{expected, fmt.Sprintf(found, args...)}
}

func (c *call) demo(out string) (err error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return noSuchFile(out, err)
	}
	interrupted := c.ctx
	ctx, cancel := context.WithTimeout(c.ctx, demoTime)
	defer cancel()
	c.ctx = ctx
	begin := c.now()
	own, err := c.serviceForDemo()
	if err != nil {
		return err
	}
	s := &story{call: c, renderer: "demo", out: out, mine: map[string]string{}}
	defer func() {
		s.tidy(own != nil)
		if own != nil {
			err = errors.Join(err, own.stop(err != nil))
		}
		if err == nil {
			c.line("\nTold in %s; the pictures are in %s.", seconds(c.now().Sub(begin).Seconds()), out)
		}
	}()
	err = s.tell()
	if err != nil && ctx.Err() != nil && interrupted.Err() == nil {
		return fmt.Errorf("the story was not told within %s", demoTime)
	}
	return err
}

// serviceForDemo finds the service, or starts one; then c talks to that.
func (c *call) serviceForDemo() (*ownService, error) {
	var far *unreachable
	_, _, err := answer[client.Admission](c.api.GetAdmission(c.ctx))
	if err == nil || !errors.As(err, &far) {
		return nil, err
	}
	c.line("Nothing answers at %s, so a service is started for the time of the story.", c.api.root)
	own, url, err := startService(c.ctx)
	if err != nil {
		return nil, err
	}
	c.api, err = dial(url, "", defaultRequestTimeout)
	if err != nil {
		return nil, errors.Join(err, own.stop(true))
	}
	c.line("It is ready at %s.", url)
	return own, nil
}

// fitting looks whether the renderer is the one that the story is about.
func (s *story) fitting() error {
	r, _, err := answer[client.Renderer](s.api.GetRenderer(s.ctx, s.renderer))
	var no *client.Error
	if errors.As(err, &no) && no.Status == http.StatusNotFound {
		return &hinted{fmt.Errorf("the service has no renderer %q", s.renderer), "Start it with `rrm serve --demo`."}
	}
	if err != nil {
		return err
	}
	idle, err := time.ParseDuration(r.Scaling.Idle)
	fits := err == nil && idle <= 15*time.Second && r.Scaling.Max != nil && *r.Scaling.Max == 4 &&
		r.Scaling.Min != nil && *r.Scaling.Min == 0 && r.Slots == 1 && r.ModelsPerResource == 2
	if !fits {
		return &hinted{
			fmt.Errorf("the renderer %q was changed: the story needs 0 to 4 resources of 1 slot and 2 models each, removed after 10 s", s.renderer),
			"Delete it and start `rrm serve --demo` again, or use a fresh --data-dir.",
		}
	}
	a, _, err := answer[client.Admission](s.api.GetAdmission(s.ctx))
	if err == nil && !a.Open {
		err = &hinted{errors.New("new sessions are suspended"), nextStep["admission_suspended"]}
	}
	return err
}

// tidy ends what the story began and has not ended: nothing, if it was told to its end.
func (s *story) tidy(own bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), farewell)
	defer cancel()
	for _, id := range s.jobs {
		if s.unfinished[id] {
			_, _, _ = answer[client.Job](s.api.CancelJob(ctx, id))
		}
	}
	for id := range s.mine {
		_, _, _ = answer[client.Session](s.api.ReleaseSession(ctx, id))
	}
	if own {
		s.stopAll(ctx)
	}
}

// stopAll stops the resources of a service that will not be there to do it.
func (s *story) stopAll(ctx context.Context) {
	for ctx.Err() == nil {
		running, _, _, err := list[client.Resource](0, func(n int, cursor string) (*http.Response, error) {
			return s.api.ListResources(ctx, &client.ListResourcesParams{Limit: n, Cursor: cursor})
		})
		if err != nil || len(running) == 0 {
			return
		}
		for _, r := range running {
			if r.State != client.ResourceStateStopping {
				_, _, _ = answer[client.Resource](s.api.StopResource(ctx, r.ID))
			}
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
