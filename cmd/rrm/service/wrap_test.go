package service_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
)

// buildRRM makes the program itself, for the tests in which it wraps others.
var buildRRM = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", binDir+"/", "github.com/rendering-resource-manager/rrm/cmd/rrm").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build rrm: %w\n%s", err, out)
	}
	return nil
})

// wrapping starts a service that can wrap programs.
func wrapping(t *testing.T) *node {
	t.Helper()
	if err := buildRRM(); err != nil {
		t.Fatal(err)
	}
	return start(t, nil)
}

// wrap configures a renderer that is a wrapped program, and says where its work is done.
func (n *node) wrap(id, command string) (workDir string) {
	n.t.Helper()
	workDir = n.t.TempDir()
	n.renderer(id, doc{
		"command_line": "rrm wrap --listen ${rest_hostname}:${rest_port} --work-dir " + workDir + " " + command, "process_rest_parameters_format": "",
		"model_loading": "none", "models_per_resource": 1, "graceful_exit": true, "scaling": doc{"min": 0, "max": 1},
	})
	return workDir
}

// apply configures the renderers of a file of examples/, with the command line, after some replacements.
func (n *node) apply(example string, replace ...string) {
	n.t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", example))
	if err != nil {
		n.t.Fatal(err)
	}
	file := filepath.Join(n.t.TempDir(), example)
	if err := os.WriteFile(file, []byte(strings.NewReplacer(replace...).Replace(string(raw))), 0o600); err != nil {
		n.t.Fatal(err)
	}
	out, err := exec.Command(program("rrm"), "renderers", "apply", "-f", file, "--server", n.URL).CombinedOutput()
	if err != nil {
		n.t.Fatalf("apply %s: %v\n%s", example, err, out)
	}
}

func (n *node) submit(body doc, header ...string) string {
	n.t.Helper()
	return n.must(202, "POST", base+"/jobs", body, header...)["id"].(string)
}

// result waits for a job and fetches what it made.
func (n *node) result(id, contentType string, header ...string) []byte {
	n.t.Helper()
	var j doc
	eventually(n.t, jobPatience, "job "+id+" succeeds", func() bool {
		j = n.must(200, "GET", base+"/jobs/"+id, nil, header...)
		if j["state"] == "failed" {
			n.t.Fatalf("job %s failed: %v", id, j)
		}
		return j["state"] == "succeeded"
	})
	status, h, raw := n.raw("GET", base+"/jobs/"+id+"/result", nil, header...)
	if status != 200 || h.Get("Content-Type") != contentType {
		n.t.Fatalf("result of %s: %d %s", id, status, h.Get("Content-Type"))
	}
	return raw
}

const jobPatience = 90e9 // nanoseconds: two cores, shared by other tests, render for real

func frameNames(t *testing.T, archive []byte) (names []string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	return names
}

// failure waits until a job has failed for good, and gives it.
func (n *node) failure(id, code string, attempts int, header ...string) doc {
	n.t.Helper()
	var j doc
	eventually(n.t, jobPatience, "job "+id+" fails", func() bool {
		j = n.must(200, "GET", base+"/jobs/"+id, nil, header...)
		return j["state"] == "failed"
	})
	if j["code"] != code || j["attempts"] != float64(attempts) {
		n.t.Errorf("it failed otherwise than with %s at attempt %d: %v", code, attempts, j)
	}
	return j
}

// A program of every system, wrapped: results, classes of failure that the
// service takes as they are meant, frames of another job.
func TestWrappedProgram(t *testing.T) {
	n := wrapping(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.wrap("copy", "--kinds image,frames --per-frame --image-output o.png --frames-output f_.png --env N={frame} --input-dir "+dir+" -- cp -- {input} {output}")
	n.wrap("first", "--kinds video --server "+n.URL+" --video-output v.webm -- cp -- {frames_dir}/frame_0001.png {output}")
	n.wrap("status", "--exit 2=permanent --default status=0 -- env -- exit{spec.status} {output}")

	if got := n.result(n.submit(doc{"renderer": "copy", "model": "a.txt", "kind": "image"}), "image/png"); string(got) != "hello" {
		t.Errorf("the result is %q", got)
	}
	frames := n.submit(doc{"renderer": "copy", "model": "a.txt", "kind": "frames", "spec": doc{"frames": 3}})
	video := n.submit(doc{"renderer": "first", "model": "m", "kind": "video", "after": []string{frames}})
	if names := frameNames(t, n.result(frames, "application/zip")); len(names) != 3 || names[2] != "frame_0003.png" {
		t.Errorf("frames: %v", names)
	}
	if got := n.result(video, "video/webm"); string(got) != "hello" {
		t.Errorf("the video of the frames is %q", got)
	}
	n.failure(n.submit(doc{"renderer": "copy", "model": "../a.txt", "kind": "image"}), "model_not_found", 1)
	n.failure(n.submit(doc{"renderer": "copy", "model": "a.txt", "kind": "image", "spec": doc{"colour": 1}}), "invalid", 1)
	n.failure(n.submit(doc{"renderer": "copy", "model": "a.txt", "kind": "video"}), "unsupported", 1)
	n.failure(n.submit(doc{"renderer": "status", "model": "m", "kind": "image"}), "unsupported", 1) // env: 127, no such program
	n.verify()
}

// The wrapper's token may read more than a client: a client gets no frames
// through it but those of jobs that it sees.
func TestWrappedProgramGivesAwayNoFrames(t *testing.T) {
	n := wrapping(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("alice's"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(dir, "token")
	as := func(role, owner string) string {
		_, secret, err := n.Tokens.Create(t.Context(), role, owner)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	n.wrap("copy", "--kinds frames --per-frame --env N={frame} --input-dir "+dir+" -- cp -- {input} {output}")
	n.wrap("first", "--kinds video --server "+n.URL+" --token-file "+token+" -- cp -- {frames_dir}/frame_0001.png {output}")
	if err := os.WriteFile(token, []byte(as("auditor", "wrapper")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice := []string{"Authorization", "Bearer " + as("client", "alice")}
	bob := []string{"Authorization", "Bearer " + as("client", "bob")}

	eventually(t, jobPatience, "the service is open no more", func() bool {
		status, _, _ := n.call("GET", base+"/jobs", nil)
		return status == 401
	})

	frames := n.submit(doc{"renderer": "copy", "model": "a.txt", "kind": "frames", "spec": doc{"frames": 1}}, alice...)
	video := n.submit(doc{"renderer": "first", "model": "m", "kind": "video", "after": []string{frames}, "spec": doc{"frames_of": frames}}, alice...)
	if got := n.result(video, "video/mp4", alice...); string(got) != "alice's" {
		t.Errorf("alice's own: %q", got)
	}
	n.must(404, "POST", base+"/jobs", doc{"renderer": "first", "model": "m", "kind": "video", "after": []string{frames}}, bob...)
	stolen := n.submit(doc{"renderer": "first", "model": "m", "kind": "video", "spec": doc{"frames_of": frames}}, bob...)
	if j := n.failure(stolen, "invalid", 1, bob...); !strings.Contains(j["reason"].(string), "frames_of") {
		t.Errorf("the reason: %v", j["reason"])
	}
}

// A wrapper that is killed takes its program with it, and the job is done by another.
func TestKilledWrapper(t *testing.T) {
	n := wrapping(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	work := n.wrap("wait", "-- cp "+fifo+" {output}") // until somebody writes
	id := n.submit(doc{"renderer": "wait", "model": "m", "kind": "image"})
	programs := func() []string {
		found, err := exec.Command("pgrep", "-f", "^[^ ]*cp "+fifo).Output()
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			t.Fatal(err)
		}
		return strings.Fields(string(found))
	}
	var first []string
	eventually(t, jobPatience, "the program runs", func() bool { first = programs(); return len(first) == 1 })
	j := n.state("/jobs/"+id, "running")
	if err := syscall.Kill(n.process(j["resource"].(string)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, jobPatience, "another wrapper runs the program", func() bool {
		now := programs()
		return len(now) == 1 && now[0] != first[0]
	})
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("at last"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := n.result(id, "image/png"); string(got) != "at last" {
		t.Errorf("%q", got)
	}
	if places, err := filepath.Glob(filepath.Join(work, "*")); err != nil || len(places) != 1 {
		t.Errorf("the killed one's directory stayed: %v (%v)", places, err)
	}
	n.must(200, "DELETE", base+"/resources/"+string(n.onlyResource()), nil)
	eventually(t, jobPatience, "the work directory goes with the wrapper", func() bool {
		left, err := os.ReadDir(work)
		return err == nil && len(left) == 0
	})
}

func (n *node) onlyResource() domain.ResourceID {
	n.t.Helper()
	live, err := n.Work.LiveResources(context.Background())
	if err != nil || len(live) != 1 {
		n.t.Fatalf("%d resources (%v)", len(live), err)
	}
	return live[0].ID
}

// keep leaves a picture where somebody can look at it, if asked to.
func keep(t *testing.T, name string, raw []byte) {
	t.Helper()
	if dir := os.Getenv("RRM_TEST_PICTURES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The examples: a still and an animation by POV-Ray, and by ffmpeg the video
// of the animation's frames, which waits for them.
func TestExamplesOfWrappedPrograms(t *testing.T) {
	if _, err := exec.LookPath("povray"); err != nil {
		t.Skip("povray is not installed")
	}
	n := wrapping(t)
	scenes, err := filepath.Abs("../../../examples/scenes")
	if err != nil {
		t.Fatal(err)
	}
	n.apply("povray.yaml", "examples/scenes", scenes)
	n.apply("povray-text.yaml")

	still := n.submit(doc{"renderer": "povray", "model": "turntable.pov", "kind": "image", "spec": doc{"width": 240, "height": 136}})
	text := n.submit(doc{"renderer": "povray-text", "model": "ball", "kind": "image", "spec": doc{"width": 64, "height": 48, "input": "camera { location -5*z look_at 0 }\nlight_source { <5,5,-5> 1 }\nsphere { 0, 1 pigment { rgb <1,0.5,0> } }"}})
	broken := n.submit(doc{"renderer": "povray-text", "model": "ball", "kind": "image", "spec": doc{"input": "sphere {"}})
	animation := n.submit(doc{"renderer": "povray", "model": "turntable.pov", "kind": "frames", "spec": doc{"frames": 10, "width": 121, "height": 69}})

	for id, size := range map[string][2]int{still: {240, 136}, text: {64, 48}} {
		raw := n.result(id, "image/png")
		img, err := png.Decode(bytes.NewReader(raw))
		if err != nil || img.Bounds().Dx() != size[0] || img.Bounds().Dy() != size[1] {
			t.Fatalf("the still is no picture of %v: %v", size, err)
		}
		colours := map[any]bool{}
		for y := range size[1] {
			for x := range size[0] {
				colours[img.At(x, y)] = true
			}
		}
		if len(colours) < 50 {
			t.Errorf("the still of %v has %d colours: nothing is to be seen", size, len(colours))
		}
		keep(t, fmt.Sprintf("still-%d.png", size[0]), raw)
	}
	if j := n.failure(broken, "invalid", 1); !strings.Contains(j["reason"].(string), "arse") {
		t.Errorf("POV-Ray's own words are missing: %v", j["reason"])
	}
	archive := n.result(animation, "application/zip")
	if names := frameNames(t, archive); len(names) != 10 || names[9] != "frame_0010.png" {
		t.Errorf("frames: %v", names)
	}
	different(t, archive)
	t.Run("video", func(t *testing.T) { videoOf(t, n, animation) })

	long := n.submit(doc{"renderer": "povray", "model": "turntable.pov", "kind": "frames", "spec": doc{"frames": 5000, "width": 1000, "height": 1000}})
	eventually(t, jobPatience, "it renders", func() bool {
		return n.must(200, "GET", base+"/jobs/"+long, nil)["state"] == "running" && povrays(t, scenes) == 1
	})
	n.must(200, "DELETE", base+"/jobs/"+long, nil)
	eventually(t, jobPatience, "POV-Ray ends with its job", func() bool { return povrays(t, scenes) == 0 })
}

// povrays counts the running ones.
func povrays(t *testing.T, scenes string) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-f", "povray -D .V .I"+scenes).Output()
	var none *exec.ExitError
	if err != nil && !errors.As(err, &none) {
		t.Fatal(err)
	}
	n := 0
	for _, pid := range strings.Fields(string(out)) {
		if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && strings.TrimSpace(string(name)) == "povray" {
			n++
		}
	}
	return n
}

// different expects that an animation moves.
func different(t *testing.T, archive []byte) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(raw)]; ok {
			t.Errorf("%s is %s", f.Name, other)
		}
		seen[string(raw)] = f.Name
		keep(t, f.Name, raw)
	}
}

func videoOf(t *testing.T, n *node, animation string) {
	for _, name := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed")
		}
	}
	n.apply("ffmpeg.yaml", "http://127.0.0.1:8383", n.URL)
	video := n.submit(doc{"renderer": "ffmpeg", "model": "h264", "kind": "video", "after": []string{animation}, "spec": doc{"fps": 12.5}})
	file := filepath.Join(t.TempDir(), "video.mp4")
	raw := n.result(video, "video/mp4")
	keep(t, "video.mp4", raw)
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=codec_name,width,height,nb_read_frames,r_frame_rate", "-of", "compact", file).CombinedOutput()
	if want := "stream|codec_name=h264|width=122|height=70|r_frame_rate=25/2|nb_read_frames=10"; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("the video is %s, not %s (%v)", out, want, err)
	}
}
