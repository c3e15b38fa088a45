package rrmv1

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Bounds of a log that is sent with every poll: the last lines, and of those the last bytes.
const (
	tailLines = 500
	tailBytes = 256 << 10
)

const unavailable = "Rendering resource is currently unavailable"

// output answers GET /session/log and /session/err: the end of what the renderer wrote.
func (s *Server) output(c *call, stream string) error {
	return s.about(c, func(c *call, r pool.Resource) (string, error) {
		if s.Outputs == nil {
			return "", nil
		}
		ctx, cancel := c.bounded()
		defer cancel()
		out, err := s.Outputs.Output(ctx, r, stream, tailLines)
		if _, refused := domain.AsRefusal(err); err != nil && !refused { // a cluster that is away is no fault of ours
			s.log.Info("the output of a resource could not be read", "resource", r.ID, "error", err)
			return "The output cannot be read at present", nil
		}
		if err != nil {
			return "", err
		}
		defer func() { _ = out.Close() }()
		b, err := io.ReadAll(io.LimitReader(out, 8<<20))
		if err != nil {
			return "", fmt.Errorf("read %s of %s: %w", stream, r.ID, err)
		}
		return strings.ToValidUTF8(string(b[max(0, len(b)-tailBytes):]), "\uFFFD"), nil
	})
}

// job answers GET /session/job: what is known of the resource.
func (s *Server) job(c *call) error {
	return s.about(c, func(c *call, r pool.Resource) (string, error) {
		var b strings.Builder
		for _, line := range [][2]string{
			{"resource", string(r.ID)}, {"renderer", string(r.Renderer)}, {"launcher", r.Launcher}, {"state", string(r.State)},
			{"reason", r.Reason}, {"node", r.Node}, {"address", r.Address}, {"requested", r.RequestedAt.UTC().Format("2006-01-02T15:04:05Z")},
		} {
			if line[1] != "" {
				fmt.Fprintf(&b, "%s=%s\n", line[0], line[1])
			}
		}
		if s.Outputs == nil {
			return b.String(), nil
		}
		ctx, cancel := c.bounded()
		defer cancel()
		info, err := s.Outputs.Info(ctx, r)
		if _, refused := domain.AsRefusal(err); err != nil && !refused {
			s.log.Info("a launcher could not tell of a resource", "resource", r.ID, "error", err)
			info = "its launcher cannot tell more at present\n"
		}
		return b.String() + info, nil
	})
}

// about answers with text about the session's resource. There being none yet is no error.
func (s *Server) about(c *call, tell func(*call, pool.Resource) (string, error)) error {
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.session(ctx, c)
	if err != nil {
		return err
	}
	if v.Ended && codes[s.dialect(c.r)][v.State] == 0 {
		return gone(&v) // why it failed may be asked as long as the status says that it did
	}
	text := unavailable
	if v.Resource != "" {
		r, err := s.Views.Resource(ctx, v.Resource)
		if err == nil {
			text, err = tell(c, r)
		}
		if _, refused := domain.AsRefusal(err); refused {
			text = "Nothing was written yet"
		} else if err != nil {
			return err
		}
	}
	return answer(c.w, http.StatusOK, map[string]string{"contents": text})
}
