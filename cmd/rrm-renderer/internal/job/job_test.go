package job

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// TestMain makes the test's own binary the ffmpeg of the tests about video.
func TestMain(m *testing.M) {
	if mode := os.Getenv("FAKE_FFMPEG"); mode != "" {
		os.Exit(fakeFFmpeg(mode, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakeFFmpeg writes its arguments and how many bytes it got into the last argument.
func fakeFFmpeg(mode string, args []string) int {
	if slices.Contains(args, "-encoders") {
		fmt.Println(" V....D libx264              libx264 H.264")
		return 0
	}
	if mode == "fail" {
		fmt.Fprintln(os.Stderr, "Unknown encoder")
		return 1
	}
	n, err := io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return 1
	}
	text := fmt.Sprintf("%d %s", n, strings.Join(args, " "))
	if os.WriteFile(args[len(args)-1], []byte(text), 0o600) != nil {
		return 1
	}
	return 0
}

func triangle(t *testing.T) model.Use {
	t.Helper()
	m := &scene.Mesh{Points: []scene.V3{{}, {X: 1}, {Y: 1}}, Indices: []uint32{0, 1, 2}}
	if err := m.Finish(scene.Unmetered); err != nil {
		t.Fatal(err)
	}
	s, err := scene.FromMesh(m)
	if err != nil {
		t.Fatal(err)
	}
	return model.Use{Key: "triangle", Scene: s}
}

func newManager(t *testing.T, video *Encoder) *Manager {
	t.Helper()
	m, err := NewManager(picture.NewPainter(2), video)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(m.dir.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the results stayed: %v", err)
		}
	})
	return m
}

func small() picture.Spec {
	s := picture.Default()
	s.Width, s.Height, s.Samples, s.Frames = 64, 48, 1, 5
	return s
}

func finished(t *testing.T, m *Manager, id string) Status {
	t.Helper()
	m.mu.Lock()
	j := m.jobs[id]
	m.mu.Unlock()
	select {
	case <-j.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("job %s does not end", id)
	}
	st, _ := m.Status(id)
	return st
}

func submit(t *testing.T, m *Manager, id string, r Request) {
	t.Helper()
	if st, err := m.Submit(id, r); err != nil || st.State != Running {
		t.Fatalf("submit %s: %+v, %v", id, st, err)
	}
}

func TestImage(t *testing.T) {
	m := newManager(t, nil)
	submit(t, m, "a", Request{Image, triangle(t), small()})
	st := finished(t, m, "a")
	if st.State != Succeeded || st.Progress != 1 || st.ContentType != "image/png" || st.Bytes == 0 {
		t.Fatalf("%+v", st)
	}
	f, err := m.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil || img.Bounds().Dx() != 64 || img.Bounds().Dy() != 48 {
		t.Fatalf("%v %v", img.Bounds(), err)
	}
	if st, err := m.Submit("a", Request{Kind: Frames}); err != nil || st.State != Succeeded {
		t.Errorf("the same id again: %+v, %v", st, err)
	}
}

func TestFrames(t *testing.T) {
	m := newManager(t, nil)
	spec := small()
	spec.Format = picture.JPEG
	submit(t, m, "a", Request{Frames, triangle(t), spec})
	st := finished(t, m, "a")
	if st.State != Succeeded || st.ContentType != "application/zip" {
		t.Fatalf("%+v", st)
	}
	f, err := m.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zip.NewReader(f, st.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 5 || z.File[0].Name != "frame_0001.jpg" || z.File[4].Name != "frame_0005.jpg" {
		t.Errorf("%d files", len(z.File))
	}
}

func TestDeleteStopsAJob(t *testing.T) {
	m := newManager(t, nil)
	spec := small()
	spec.Frames, spec.Width, spec.Height = 10000, 1000, 1000
	submit(t, m, "a", Request{Frames, triangle(t), spec})
	deadline := time.Now().Add(10 * time.Second)
	for st, _ := m.Status("a"); st.Progress == 0; st, _ = m.Status("a") {
		if time.Now().After(deadline) {
			t.Fatal("no progress")
		}
		<-time.After(time.Millisecond)
	}
	if st, ok := m.Delete("a"); !ok || st.State != Cancelled {
		t.Fatalf("%+v %v", st, ok)
	}
	if _, ok := m.Status("a"); ok {
		t.Error("it is still known")
	}
	if _, ok := m.Delete("a"); ok {
		t.Error("deleted twice")
	}
	if left, err := os.ReadDir(m.dir.path); err != nil || len(left) != 1 { // the lock
		t.Errorf("%d files left (%v)", len(left), err)
	}
}

func TestJobsAreBounded(t *testing.T) {
	m := newManager(t, nil)
	spec := small()
	spec.Frames, spec.Width, spec.Height = 10000, 1000, 1000
	use := triangle(t)
	for i := range maxActive {
		submit(t, m, fmt.Sprint("j", i), Request{Frames, use, spec})
	}
	if _, err := m.Submit("more", Request{Image, use, small()}); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
}

func TestTheOldestFinishedIsForgotten(t *testing.T) {
	m := newManager(t, nil)
	use := triangle(t)
	for i := range maxKept + 3 {
		id := fmt.Sprint("j", i)
		submit(t, m, id, Request{Image, use, small()})
		finished(t, m, id)
	}
	for id, want := range map[string]bool{"j0": false, "j2": false, "j3": true, fmt.Sprint("j", maxKept+2): true} {
		if _, ok := m.Status(id); ok != want {
			t.Errorf("%s known: %v", id, ok)
		}
	}
	if left, err := os.ReadDir(m.dir.path); err != nil || len(left) != maxKept+1 {
		t.Errorf("%d files (%v)", len(left), err)
	}
}

func TestResultsAreBounded(t *testing.T) {
	b := &bounded{w: io.Discard, left: 10}
	if _, err := b.Write(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if _, err := b.Write(make([]byte, 1)); !errors.Is(err, errTooLarge) {
		t.Errorf("err %v", err)
	}
}

func fakeVideo(t *testing.T, mode string) *Encoder {
	t.Helper()
	t.Setenv("FAKE_FFMPEG", mode)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := FindEncoder(context.Background(), self)
	if !e.Can(picture.MP4) || e.Can(picture.WebM) {
		t.Fatalf("codecs: %+v", e)
	}
	return e
}

func TestVideoSendsFramesToFFmpeg(t *testing.T) {
	m := newManager(t, fakeVideo(t, "work"))
	spec := small()
	spec.FPS = 30
	submit(t, m, "v", Request{Video, triangle(t), spec})
	st := finished(t, m, "v")
	if st.State != Succeeded || st.ContentType != "video/mp4" {
		t.Fatalf("%+v", st)
	}
	f, err := m.Open("v")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	said, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprint(64*48*4*5, " "), "-video_size 64x48", "-framerate 30", "-c:v libx264"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("ffmpeg got %q, not %q", said, want)
		}
	}
}

func TestVideoFailureTellsWhatFFmpegSaid(t *testing.T) {
	m := newManager(t, fakeVideo(t, "fail"))
	submit(t, m, "v", Request{Video, triangle(t), small()})
	if st := finished(t, m, "v"); st.State != Failed || !strings.Contains(st.Reason, "Unknown encoder") {
		t.Fatalf("%+v", st)
	}
}

func TestVideoIsKilledOnCancel(t *testing.T) {
	m := newManager(t, fakeVideo(t, "work"))
	spec := small()
	spec.Frames = 10000
	submit(t, m, "v", Request{Video, triangle(t), spec})
	if st, _ := m.Delete("v"); st.State != Cancelled {
		t.Fatalf("%+v", st)
	}
}

func TestNoEncoder(t *testing.T) {
	if e := FindEncoder(context.Background(), filepath.Join(t.TempDir(), "ffmpeg")); e != nil || e.Can(picture.MP4) {
		t.Fatalf("%+v", e)
	}
}

// pictures are the frames in a job's archive by name.
func pictures(t *testing.T, m *Manager, id string) map[string]string {
	t.Helper()
	f, err := m.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zip.OpenReader(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	all := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name] = string(b)
	}
	return all
}

func TestARangeOfFramesHoldsThePicturesOfTheWhole(t *testing.T) {
	m := newManager(t, nil)
	submit(t, m, "whole", Request{Frames, triangle(t), small()})
	part := small()
	part.FirstFrame, part.LastFrame = 2, 4
	submit(t, m, "part", Request{Frames, triangle(t), part})
	if st := finished(t, m, "part"); st.State != Succeeded || st.Frames != 3 || st.Progress != 1 {
		t.Fatalf("%+v", st)
	}
	finished(t, m, "whole")
	whole, got := pictures(t, m, "whole"), pictures(t, m, "part")
	if len(whole) != 5 || len(got) != 3 {
		t.Fatalf("%d and %d frames", len(whole), len(got))
	}
	for name, picture := range got {
		if whole[name] != picture {
			t.Errorf("%s is not that of the whole", name)
		}
	}
}

func TestStoppedBetweenTwoFrames(t *testing.T) {
	m := newManager(t, nil)
	long := small()
	long.Frames = 10_000
	submit(t, m, "long", Request{Frames, triangle(t), long})
	for made := 0; made < 3; { // until some are made
		st, _ := m.Status("long")
		made = st.Frames
	}
	for range 2 {
		if _, ok, err := m.StopAfterFrame("long"); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	st := finished(t, m, "long")
	if st.State != Stopped || st.Frames < 3 || st.Frames >= 10_000 || st.Bytes == 0 || st.ContentType != "application/zip" {
		t.Fatalf("%+v", st)
	}
	got := pictures(t, m, "long")
	if len(got) != st.Frames || got[fmt.Sprintf("frame_%04d.png", st.Frames)] == "" {
		t.Errorf("%d pictures of %d frames", len(got), st.Frames)
	}
	submit(t, m, "image", Request{Image, triangle(t), small()})
	if _, ok, err := m.StopAfterFrame("image"); !ok || !errors.Is(err, ErrNotFrames) {
		t.Errorf("an image was stopped: %v", err)
	}
	if _, ok, _ := m.StopAfterFrame("none"); ok {
		t.Error("what is not there was stopped")
	}
	finished(t, m, "image")
}

func TestStoppedWhileItWaits(t *testing.T) {
	m := newManager(t, nil)
	for range atOnce {
		m.slots <- struct{}{}
	}
	submit(t, m, "a", Request{Frames, triangle(t), small()})
	if _, ok, err := m.StopAfterFrame("a"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if st := finished(t, m, "a"); st.State != Stopped || st.Frames != 0 {
		t.Errorf("%+v", st)
	}
}
