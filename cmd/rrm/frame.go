package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) frameCommand() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use: "frame SESSION", Short: "Fetch one frame of a session's renderer", Args: needs(1, 1),
		Long: `Fetches one image through the service from the session's renderer, as docs/renderer-protocol.md says, and renews the
lease by doing so.`,
		Example:           `  rrm frame 1f9a20c4 -f neuron.png --width 1280 --height 720 --yaw 90`,
		ValidArgsFunction: p.completeSessions(client.SessionStateReady),
		RunE: p.client(func(c *call, args []string) error {
			if err := c.writable(file); err != nil {
				return err
			}
			id, err := c.session(c.ctx, args[0])
			if err != nil {
				return err
			}
			return c.frame(id, file, format)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "-", "`FILE` to write; -: standard output")
	f.StringVar(&format, "format", "", "png or jpeg (default: as the file's name says, else png)")
	for _, name := range []string{"width", "height", "quality", "samples"} {
		f.Int(name, 0, "of the image (default: the renderer's)")
	}
	for _, name := range []string{"yaw", "pitch", "distance", "fov"} {
		f.Float64(name, 0, "of the camera, for this frame (default: the session's)")
	}
	return clientFlags(cmd)
}

func (c *call) frame(id, file, format string) error {
	if format == "" {
		format = "png"
		if ext := strings.ToLower(filepath.Ext(file)); ext == ".jpg" || ext == ".jpeg" {
			format = "jpeg"
		}
	}
	query := url.Values{"format": {format}}
	for _, name := range []string{"width", "height", "quality", "samples", "yaw", "pitch", "distance", "fov"} {
		if f := c.cmd.Flags().Lookup(name); f.Changed {
			query.Set(name, f.Value.String())
		}
	}
	s, _, err := answer[client.Session](c.api.GetSession(c.ctx, id))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.api.rendererURL(s.URL, "v1/image", query), nil)
	if err != nil {
		return fmt.Errorf("ask for a frame: %w", err)
	}
	res, err := c.api.render(req) //nolint:bodyclose // save closes it
	if err != nil {
		return err
	}
	return c.save(res, file)
}

// rendererURL is a path at a session's renderer.
func (a *api) rendererURL(session, path string, query url.Values) string {
	u := strings.TrimSuffix(a.link(session), "/") + "/" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	return u
}

// render sends a request through the service to a renderer.
func (a *api) render(req *http.Request) (*http.Response, error) {
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	d := &doer{client: &http.Client{}, server: a.root}
	return d.Do(req)
}
