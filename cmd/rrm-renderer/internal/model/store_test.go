package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const triangle = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"

func newStore(t *testing.T, limit int64) (*Store, string) {
	t.Helper()
	outside := t.TempDir()
	dir := filepath.Join(outside, "models")
	for name, text := range map[string]string{
		"models/a.obj": triangle, "models/sub/b.obj": triangle, "models/bad.obj": "f 1 2 3\n",
		"models/a.txt": triangle, "secret.obj": triangle,
	} {
		path := filepath.Join(outside, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link.obj": "../secret.obj", "abs.obj": filepath.Join(outside, "secret.obj"), "inner.obj": "a.obj"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	library, err := OpenLibrary(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewStore(library, limit)
	t.Cleanup(func() {
		s.Close()
		if err := library.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, outside
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func loaded(t *testing.T, s *Store, key string) Status {
	t.Helper()
	if _, err := s.Load(key); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	st, err := s.Wait(ctx, key)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return st
}

func TestKeys(t *testing.T) {
	s, outside := newStore(t, 1<<30)
	for key, want := range map[string]string{
		"a.obj": "", "file:a.obj": "", "file:sub/b.obj": "", "./a.obj": "", "sub/../a.obj": "", "inner.obj": "", "sphere": "", "torus": "",
		"none.obj": CodeNotFound, "file:": CodeNotFound, "sub": CodeNotFound, "http://x/a.obj": CodeNotFound,
		"../secret.obj": CodeNotFound, "file:../secret.obj": CodeNotFound, "sub/../../secret.obj": CodeNotFound,
		"link.obj": CodeNotFound, "abs.obj": CodeNotFound, outside + "/secret.obj": CodeNotFound, "file:" + outside + "/secret.obj": CodeNotFound,
		"": CodeInvalid, "a\x00.obj": CodeInvalid, "a\n": CodeInvalid, "\xff": CodeInvalid, "a.txt": CodeInvalid,
		"neuron:": CodeInvalid, "neuron:x": CodeInvalid, "neuron:-1": CodeInvalid, "circuit:0": CodeInvalid, "circuit:-5": CodeInvalid, "circuit:1e3": CodeInvalid,
		"circuit:10001": CodeTooLarge, "circuit:99999999999999999999": CodeTooLarge,
	} {
		_, err := s.Load(key)
		if want == "" && err != nil || want != "" && codeOf(err) != want {
			t.Errorf("%q: %v, want %q", key, err, want)
		}
	}
}

func TestWithoutADirectoryThereAreNoFiles(t *testing.T) {
	library, err := OpenLibrary("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := library.resolve("a.obj"); codeOf(err) != CodeNotFound {
		t.Fatalf("err %v", err)
	}
}

func TestLoadUseUnload(t *testing.T) {
	s, _ := newStore(t, 1<<30)
	if _, err := s.Get(""); codeOf(err) != CodeNotLoaded {
		t.Errorf("get of nothing: %v", err)
	}
	st := loaded(t, s, "a.obj")
	if st.State != Loaded || st.Progress != 1 || !(st.MemoryMiB > 0) || !(st.LoadSeconds > 0) {
		t.Errorf("loaded: %+v", st)
	}
	loaded(t, s, "sphere")
	if u, err := s.Get(""); err != nil || u.Key != "sphere" {
		t.Errorf("the model loaded last: %+v, %v", u.Key, err)
	}
	u, err := s.Get("a.obj")
	if err != nil || u.Scene == nil {
		t.Fatal(err)
	}
	s.Unload("a.obj")
	s.Unload("a.obj")
	select {
	case <-u.Gone:
	default:
		t.Error("who uses the model was not told")
	}
	if _, err := s.Status("a.obj"); codeOf(err) != CodeNotLoaded {
		t.Errorf("after unload: %v", err)
	}
	all, used, limit := s.List()
	if len(all) != 1 || all[0].Model != "sphere" || used != all[0].MemoryMiB || limit != 1024 {
		t.Errorf("list: %+v, used %v of %v", all, used, limit)
	}
	s.Unload("sphere")
	if _, used, _ = s.List(); used != 0 {
		t.Errorf("%v MiB are used by nothing", used)
	}
}

func TestFailureIsToldAndTriedAgain(t *testing.T) {
	s, outside := newStore(t, 1<<30)
	st := loaded(t, s, "bad.obj")
	if st.State != Failed || st.Code != CodeInvalid || st.Reason == "" {
		t.Fatalf("a bad file: %+v", st)
	}
	if err := os.WriteFile(filepath.Join(outside, "models/bad.obj"), []byte(triangle), 0o600); err != nil {
		t.Fatal(err)
	}
	if st = loaded(t, s, "bad.obj"); st.State != Loaded || st.Code != "" {
		t.Fatalf("mended: %+v", st)
	}
}

func TestMemoryLimit(t *testing.T) {
	s, _ := newStore(t, 1<<20)
	if _, err := s.Load("circuit:100"); codeOf(err) != CodeTooLarge {
		t.Errorf("known at once: %v", err)
	}
	// Not known at once: the sphere takes about a mebibyte, and its finish more.
	if st := loaded(t, s, "sphere"); st.State != Failed || st.Code != CodeTooLarge {
		t.Errorf("found out on the way: %+v", st)
	}
	if st := loaded(t, s, "a.obj"); st.State != Loaded {
		t.Errorf("another model after that: %+v", st)
	}
	s.Unload("sphere")
	s.Unload("a.obj")
	if _, used, _ := s.List(); used != 0 {
		t.Errorf("%v MiB are used by nothing", used)
	}
}

// The limit holds while loading too: this neuron takes 112 KiB, and 190 more
// while it is put in order.
func TestMemoryLimitHoldsWhileLoading(t *testing.T) {
	s, _ := newStore(t, 200<<10)
	if st := loaded(t, s, "neuron:1"); st.State != Failed || st.Code != CodeTooLarge {
		t.Errorf("%+v", st)
	}
}

func TestUnloadCancelsALoad(t *testing.T) {
	s, _ := newStore(t, 1<<30)
	if _, err := s.Load("circuit:2000"); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	e := s.entries["circuit:2000"]
	s.mu.Unlock()
	s.Unload("circuit:2000")
	select {
	case <-e.done:
	case <-time.After(5 * time.Second):
		t.Fatal("the load goes on")
	}
	if all, used, _ := s.List(); len(all) != 0 || used != 0 {
		t.Errorf("left: %+v, %v MiB", all, used)
	}
}

func TestLoadsAreBounded(t *testing.T) {
	s, _ := newStore(t, 1<<40)
	for i := range maxLoading {
		if _, err := s.Load(fmt.Sprintf("circuit:%d", 5000+i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Load("a.obj"); codeOf(err) != CodeBusy {
		t.Errorf("one more: %v", err)
	}
	if st, err := s.Load("circuit:5000"); err != nil || st.State != Loading {
		t.Errorf("one of them again: %+v, %v", st, err)
	}
}

func TestAPanicIsOneModelsFailure(t *testing.T) {
	_, err := safely(func() (*scene.Scene, error) { panic("index out of range") })
	if codeOf(err) != CodeInvalid {
		t.Fatalf("err %v", err)
	}
}
