package wrap

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// zipOf makes an archive of files with their names as text.
func zipOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// service is as much of an rrm as the frames of a job need.
func service(t *testing.T, results map[string][]byte) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	jobs := map[string]doc{
		"video": {"after": []string{"frames"}}, "two": {"after": []string{"frames", "short"}}, "alone": {}, "frames": {"kind": "frames"}, "short": {"kind": "frames"},
		"image": {"kind": "image"}, "ofimage": {"after": []string{"image"}}, "away": {"kind": "frames"}, "ofaway": {"after": []string{"away"}},
		"late": {"kind": "frames"}, "oflate": {"after": []string{"late"}}, "sick": {"kind": "frames"}, "ofsick": {"after": []string{"sick"}},
		"bad": {"kind": "frames"}, "ofbad": {"after": []string{"bad"}},
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked for %s", r.URL)
	}))
	t.Cleanup(elsewhere.Close)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+client.BasePath+"/jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		j, ok := jobs[r.PathValue("id")]
		switch {
		case r.Header.Get("Authorization") != "Bearer the token":
			w.WriteHeader(http.StatusUnauthorized)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_ = json.NewEncoder(w).Encode(j)
		}
	})
	mux.HandleFunc("GET "+client.BasePath+"/jobs/{id}/result", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("id") {
		case "away":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "late":
			w.WriteHeader(http.StatusConflict)
		case "sick":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write(results[r.PathValue("id")])
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestFramesOfAnotherJob(t *testing.T) {
	url, _ := service(t, map[string][]byte{"frames": zipOf(t, "frame_0001.png", "frame_0002.png"), "short": zipOf(t, "frame_0001.png")})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, func(s *Settings) { s.Kinds, s.Server, s.TokenFile = []string{kindVideo}, url, token },
		"args", "{output}", "{frames_dir}", "{frames}")
	for id, c := range map[string]struct {
		of   any
		want string
	}{"video.1": {nil, "2"}, "video.2": {"frames", "2"}, "two.1": {"short", "1"}} {
		spec := doc{}
		if c.of != nil {
			spec["frames_of"] = c.of
		}
		_, raw := w.made(id, kindVideo, spec)
		var args []string
		if err := json.Unmarshal(raw, &args); err != nil || args[1] != c.want {
			t.Errorf("%s: %v (%v)", id, args, err)
		}
	}
	for id, c := range map[string]struct{ of, code, says string }{
		"two.2":     {"", codeInvalid, "missing"},
		"alone.1":   {"", codeInvalid, "missing"},
		"alone.2":   {"frames", codeInvalid, "after"}, // somebody else's, for all that rrm knows
		"unknown.1": {"frames", codeInvalid, "404"},
		"ofimage.1": {"", codeInvalid, "of the kind frames"},
		"ofaway.1":  {"", codeNoFrames, "302"},
		"oflate.1":  {"", codeInvalid, "409"},
		"ofsick.1":  {"", codeNoFrames, "503"},
	} {
		spec := doc{}
		if c.of != "" {
			spec["frames_of"] = c.of
		}
		if st := w.failed(id, kindVideo, spec); st.Code != c.code || !strings.Contains(st.Reason, c.says) {
			t.Errorf("%s: %+v", id, st)
		}
	}
	if err := os.WriteFile(token, []byte("revoked"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := w.failed("video.3", kindVideo, nil); st.Code != codeNoFrames || !strings.Contains(st.Reason, "401") {
		t.Errorf("a token that is not taken: %+v", st)
	}
}

func TestArchivesThatAreNoFrames(t *testing.T) {
	bomb := func() []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create("frame_0001.png")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	many := make([]string, maxFrames+1)
	for i := range many {
		many[i] = fmt.Sprint("f", i)
	}
	for name, c := range map[string]struct {
		archive []byte
		code    string
	}{
		"nothing":    {nil, codeInvalid},
		"no archive": {[]byte("PK no"), codeInvalid},
		"empty":      {zipOf(t), codeInvalid},
		"upwards":    {zipOf(t, "../frame.png"), codeInvalid},
		"absolute":   {zipOf(t, "/frame.png"), codeInvalid},
		"below":      {zipOf(t, "a/frame.png"), codeInvalid},
		"option":     {zipOf(t, "-frame.png"), codeInvalid},
		"hidden":     {zipOf(t, ".frame.png"), codeInvalid},
		"twice":      {zipOf(t, "frame.png", "frame.png"), codeInvalid},
		"many":       {zipOf(t, many...), codeInvalid},
		"a bomb":     {bomb(), codeTooLarge},
		"large":      {make([]byte, 5<<20), codeTooLarge},
	} {
		url, asked := service(t, map[string][]byte{"bad": c.archive})
		w := start(t, func(s *Settings) {
			s.Kinds, s.Server, s.Token, s.MaxOutput = []string{kindVideo}, url, "the token", 4<<20
		}, "write", "{output}", "{frames_dir}")
		if st := w.failed("ofbad.1", kindVideo, nil); st.Code != c.code || asked.Load() != 2 {
			t.Errorf("%s: %+v", name, st)
		}
		if left, err := filepath.Glob(filepath.Join(w.workDir, "*", "*")); err != nil || len(left) != 1 {
			t.Errorf("%s left %v", name, left)
		}
	}
}
