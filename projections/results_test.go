package projections

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const plenty = 1 << 40

// noise gives bytes that differ everywhere, so that a chunk in the wrong place shows.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func read(t *testing.T, r *Results, job domain.JobID) (ResultInfo, []byte) {
	t.Helper()
	info, body, err := r.Open(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return info, b
}

func wantEmpty(t *testing.T, db *sqlx.DB) {
	t.Helper()
	if n := count(t, db, `SELECT (SELECT count(*) FROM results) + (SELECT count(*) FROM result_meta)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestResults(t *testing.T) {
	db := dbtest.New(t)
	r := NewResults(db)
	for name, size := range map[domain.JobID]int{"empty": 0, "one": 1, "chunk": chunkSize, "chunk and one": chunkSize + 1, "many": 3*chunkSize + 17} {
		want := noise(size)
		n, err := r.Store(t.Context(), name, "image/png", iotest.HalfReader(bytes.NewReader(want)), plenty)
		if err != nil || n != int64(size) {
			t.Fatalf("%s: stored %d, %v", name, n, err)
		}
		info, got := read(t, r, name)
		if info.ContentType != "image/png" || info.Bytes != int64(size) || !bytes.Equal(got, want) {
			t.Errorf("%s: read %d bytes, %+v", name, len(got), info)
		}
	}
	for _, job := range []domain.JobID{"none", "a\x00"} {
		_, _, err := r.Open(t.Context(), job)
		wantRefusal(t, err, domain.KindNotFound, "result_not_found", "")
	}
	_, err := r.Store(t.Context(), "", "image/png", nil, plenty)
	wantRefusal(t, err, domain.KindInvalid, "invalid", "job")
	_, err = r.Store(t.Context(), "j", "image/\x00", nil, plenty)
	wantRefusal(t, err, domain.KindInvalid, "invalid", "content_type")
}

func TestResultStays(t *testing.T) {
	r := NewResults(dbtest.New(t))
	want := noise(chunkSize + 5)
	if _, err := r.Store(t.Context(), "j", "image/png", bytes.NewReader(want), plenty); err != nil {
		t.Fatal(err)
	}
	n, err := r.Store(t.Context(), "j", "text/plain", iotest.ErrReader(errors.New("read although it is complete")), plenty)
	if err != nil || n != int64(len(want)) {
		t.Fatalf("stored again: %d, %v", n, err)
	}
	if info, got := read(t, r, "j"); info.ContentType != "image/png" || !bytes.Equal(got, want) {
		t.Errorf("the result changed to %+v", info)
	}
}

func TestResultTooLarge(t *testing.T) {
	db := dbtest.New(t)
	r := NewResults(db)
	_, err := r.Store(t.Context(), "j", "image/png", bytes.NewReader(noise(2*chunkSize+1)), 2*chunkSize)
	wantRefusal(t, err, domain.KindInvalid, "result_too_large", "")
	wantEmpty(t, db)
	if n, err := r.Store(t.Context(), "j", "image/png", bytes.NewReader(noise(2*chunkSize)), 2*chunkSize); err != nil || n != 2*chunkSize {
		t.Errorf("of exactly the bound: %d, %v", n, err)
	}
}

func TestResultInterrupted(t *testing.T) {
	db := dbtest.New(t)
	r := NewResults(db)
	broken := errors.New("the renderer is gone")
	_, err := r.Store(t.Context(), "j", "image/png", io.MultiReader(bytes.NewReader(noise(2*chunkSize)), iotest.ErrReader(broken)), plenty)
	if !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	wantEmpty(t, db)

	ctx, cancel := context.WithCancel(t.Context())
	stop := readerFunc(func([]byte) (int, error) { cancel(); return 0, ctx.Err() })
	if _, err = r.Store(ctx, "j", "image/png", io.MultiReader(bytes.NewReader(noise(chunkSize)), stop), plenty); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	wantEmpty(t, db)

	// What a process that was killed has left is no result and is replaced.
	mustExec(t, db, `INSERT INTO result_meta (job_id, content_type, attempt) VALUES ('j', 'image/png', 'dead')`)
	mustExec(t, db, `INSERT INTO results (job_id, seq, bytes) VALUES ('j', 0, 'x'), ('j', 7, 'y')`)
	_, _, err = r.Open(t.Context(), "j")
	wantRefusal(t, err, domain.KindNotFound, "result_not_found", "")
	want := noise(10)
	if _, err := r.Store(t.Context(), "j", "video/mp4", bytes.NewReader(want), plenty); err != nil {
		t.Fatal(err)
	}
	if info, got := read(t, r, "j"); !bytes.Equal(got, want) || info.ContentType != "video/mp4" || count(t, db, `SELECT count(*) FROM results`) != 1 {
		t.Errorf("after the replacement: %+v, %d bytes", info, len(got))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Of two attempts at once the later takes over, and no chunk of the earlier stays.
func TestResultTakenOver(t *testing.T) {
	db := dbtest.New(t)
	r := NewResults(db)
	second := noise(2*chunkSize + 3)
	for _, complete := range []bool{true, false} {
		mustExec(t, db, `DELETE FROM results`)
		mustExec(t, db, `DELETE FROM result_meta`)
		meanwhile := readerFunc(func([]byte) (int, error) {
			if complete {
				if _, err := r.Store(t.Context(), "j", "video/mp4", bytes.NewReader(second), plenty); err != nil {
					t.Error(err)
				}
			} else if err := r.begin(t.Context(), "j", "other", "video/mp4"); err != nil {
				t.Error(err)
			}
			return 0, io.EOF
		})
		n, err := r.Store(t.Context(), "j", "image/png", io.MultiReader(bytes.NewReader(noise(3*chunkSize)), meanwhile, bytes.NewReader(noise(2*chunkSize))), plenty)
		if !complete {
			wantRefusal(t, err, domain.KindConflict, "result_superseded", "")
			if count(t, db, `SELECT count(*) FROM results`) != 0 || count(t, db, `SELECT count(*) FROM result_meta WHERE attempt = 'other'`) != 1 {
				t.Error("the earlier attempt's chunks stay, or it removed the later attempt")
			}
			continue
		}
		if err != nil || n != int64(len(second)) {
			t.Errorf("the earlier attempt gives %d, %v", n, err)
		}
		if info, got := read(t, r, "j"); info.ContentType != "video/mp4" || !bytes.Equal(got, second) {
			t.Errorf("the result is %+v, %d bytes", info, len(got))
		}
	}
}

func TestResultInConstantMemory(t *testing.T) {
	r := NewResults(dbtest.New(t))
	const size = 24 << 20
	var peak uint64
	var m runtime.MemStats
	watch := func() {
		runtime.GC()
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	watch()
	before := peak
	chunk, left := noise(1<<20), size
	source := readerFunc(func(p []byte) (int, error) {
		if left == 0 {
			return 0, io.EOF
		}
		n := copy(p, chunk[:min(len(chunk), left)])
		if left -= n; left%(4<<20) == 0 {
			watch()
		}
		return n, nil
	})
	if n, err := r.Store(t.Context(), "j", "video/mp4", source, plenty); err != nil || n != size {
		t.Fatalf("stored %d, %v", n, err)
	}
	_, body, err := r.Open(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	buf, total := make([]byte, 64<<10), 0
	for err == nil {
		var n int
		n, err = body.Read(buf)
		if total += n; total%(4<<20) == 0 {
			watch()
		}
	}
	if !errors.Is(err, io.EOF) || total != size {
		t.Fatalf("read %d bytes, %v", total, err)
	}
	if grown := int64(peak) - int64(before); grown > 10<<20 {
		t.Errorf("%d MiB took up to %d MiB of memory", size>>20, grown>>20)
	}
}

func TestResultsPrune(t *testing.T) {
	db := dbtest.New(t)
	r := NewResults(db)
	for i := range 2*pruneBatch + 3 {
		if _, err := r.Store(t.Context(), domain.JobID(rune('a'+i)), "image/png", bytes.NewReader([]byte("old")), plenty); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, db, `UPDATE result_meta SET created_at = clock_timestamp() - interval '90 minutes'`)
	_, held, err := r.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Store(t.Context(), "new", "image/png", bytes.NewReader([]byte("new")), plenty); err != nil {
		t.Fatal(err)
	}
	n, err := r.Prune(t.Context(), time.Hour)
	if err != nil || n != 2*pruneBatch+3 {
		t.Errorf("pruned %d, %v", n, err)
	}
	if count(t, db, `SELECT count(*) FROM results`) != 1 || count(t, db, `SELECT count(*) FROM result_meta`) != 1 {
		t.Error("not only the new result is left")
	}
	if _, err := io.ReadAll(held); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading a pruned result ends with %v", err)
	}
	if n, err = r.Prune(t.Context(), time.Hour); err != nil || n != 0 {
		t.Errorf("pruned again %d, %v", n, err)
	}
}
