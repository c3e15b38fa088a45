package rrmv1_test

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

func token(role string, owner domain.Owner) projections.Token {
	return projections.Token{Role: role, Owner: owner}
}

// open opens a stream of pictures.
func open(t *testing.T, url string) (*multipart.Reader, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != 200 || err != nil || kind != "multipart/x-mixed-replace" || params["boundary"] != "frame" {
		t.Fatalf("%s: %d %s", url, res.StatusCode, res.Header.Get("Content-Type"))
	}
	return multipart.NewReader(res.Body, "frame"), res
}

func next(t *testing.T, r *multipart.Reader) []byte {
	t.Helper()
	part, err := r.NextPart()
	if err != nil {
		t.Fatalf("no picture: %v", err)
	}
	b, err := io.ReadAll(part)
	if n, _ := strconv.Atoi(part.Header.Get("Content-Length")); err != nil || part.Header.Get("Content-Type") != "image/jpeg" || n != len(b) {
		t.Fatalf("a picture of %d bytes with %v: %v", len(b), part.Header, err)
	}
	return b
}

// watch takes some pictures of a stream and leaves.
func watch(t *testing.T, url string, pictures int) [][]byte {
	t.Helper()
	r, res := open(t, url)
	defer func() { _ = res.Body.Close() }()
	all := make([][]byte, pictures)
	for i := range all {
		all[i] = next(t, r)
	}
	return all
}

func ready(t *testing.T, change func(*rrmv1.Config)) (*world, *client, domain.SessionID, string) {
	t.Helper()
	w := newWorld()
	var n atomic.Int64
	w.picture = func() ([]byte, error) { return strconv.AppendInt(nil, n.Add(1), 10), nil }
	c := serve(t, w, change)
	s := c.begin()
	w.put(s, pool.SessionStateReady)
	return w, c, s, c.url + "/imagefeed/" + string(s)
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	w, c, s, url := ready(t, nil)
	r, _ := open(t, url)
	next(t, r)
	w.put(s, pool.SessionStateReleased)
	for {
		if _, err := r.NextPart(); err != nil {
			break
		}
	}
	if got := c.call("GET", "/imagefeed/"+string(s), nil); got.status != 404 {
		t.Errorf("the stream of a session that has ended: %d", got.status)
	}
}

func TestAStreamRenewsTheLease(t *testing.T) {
	t.Parallel()
	w, _, _, url := ready(t, nil)
	r, _ := open(t, url)
	for w.count(func() int { return len(w.renewals) }) < 3 {
		next(t, r)
	}
}

func TestAStreamIsBoundedInRateAndNumber(t *testing.T) {
	t.Parallel()
	const every = 30 * time.Millisecond
	_, c, s, url := ready(t, func(cfg *rrmv1.Config) { cfg.FrameEvery, cfg.MaxStreams = every, 1 })
	r, res := open(t, url)
	next(t, r)
	begin := time.Now()
	for range 10 {
		next(t, r)
	}
	if took := time.Since(begin); took < 9*every {
		t.Errorf("10 pictures came within %s", took)
	}
	if got := c.call("GET", "/imagefeed/"+string(s), nil); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %d", got.status)
	}
	_ = res.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		again, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = again.Body.Close()
		}
		cancel()
		if err == nil && again.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a client that has gone still counts")
		}
	}
}

func TestAPictureThatIsTheSameIsNotSentAllTheTime(t *testing.T) {
	t.Parallel()
	w, _, _, url := ready(t, nil)
	var asked atomic.Int64
	w.picture = func() ([]byte, error) { asked.Add(1); return []byte("same"), nil }
	watch(t, url, 2)
	if asked.Load() < 10 {
		t.Errorf("the second came after %d looks", asked.Load())
	}
}

func TestARendererThatGivesNoPicture(t *testing.T) {
	t.Parallel()
	w, c, _, _ := ready(t, nil)
	fails := 3
	w.picture = func() ([]byte, error) {
		if fails--; fails >= 0 {
			return nil, errors.New("not yet")
		}
		return []byte("now"), nil
	}
	c.must(200, "GET", "/session/imagefeed", nil) // it is waited for a moment: one client asks only once
	w.picture = func() ([]byte, error) { return nil, domain.NotFound("picture", "x") }
	c.must(404, "GET", "/session/imagefeed", nil)
	w.picture = func() ([]byte, error) { return nil, errors.New("never") }
	c.must(400, "GET", "/session/imagefeed", nil)
}

func TestAnAddressInFrontIsInTheURI(t *testing.T) {
	t.Parallel()
	_, c, s, _ := ready(t, func(cfg *rrmv1.Config) { cfg.Public = "viz.example.org/viz" })
	if uri := c.must(200, "GET", "/session/imagefeed", nil).doc["uri"]; uri != "//viz.example.org/viz"+base+"/imagefeed/"+string(s) {
		t.Errorf("the stream is at %v", uri)
	}
}

func TestWhatIsForwardedEndsWhenTheSessionEndsOrMoves(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"ends": 404, "moves": 400} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c, s, _ := ready(t, nil)
			begun := make(chan struct{})
			w.answer = func(_ http.ResponseWriter, r *http.Request, fail func(int, string, string)) {
				close(begun)
				<-r.Context().Done() // it says nothing, and nothing flows
				fail(502, "renderer_unreachable", "given up")
			}
			go func() {
				<-begun
				if name == "ends" {
					w.put(s, pool.SessionStateExpired)
					return
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				w.sessions[s].Address = "10.0.0.8:1"
			}()
			c.must(want, "GET", "/session/events", nil)
		})
	}
}
