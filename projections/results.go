package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Results keeps what jobs made: pictures, archives, videos, in chunks, so that
// neither storing nor reading holds more than one of them in memory.
type Results struct{ db *sqlx.DB }

// NewResults uses the tables of results in db.
func NewResults(db *sqlx.DB) *Results { return &Results{db: db} }

// ResultInfo says what a result is.
type ResultInfo struct {
	ContentType string `json:"content_type" db:"content_type"`
	Bytes       int64  `json:"bytes"`
}

// chunkSize is small beside the memory of a process that stores many results
// at once, and large beside the cost of a round trip.
const chunkSize = 256 << 10

// maxContentType is more than any registered media type with its parameters needs.
const maxContentType = 256

// errSuperseded: another attempt to store the same result began later, or completed.
var errSuperseded = errors.New("another attempt took over")

// Store reads r to its end and keeps it as the job's result. Repeating is
// safe: a complete result stays as it is, its size is given and r is not read;
// what an interrupted attempt left is replaced. Of two attempts at once the
// later takes over; the earlier gets the size of the other's result if that is
// complete, else a refusal (conflict, result_superseded). Over maxBytes, which
// is positive: a refusal (invalid, result_too_large), and nothing is kept. An
// error of r is given back wrapped, and nothing is kept.
func (s *Results) Store(ctx context.Context, job domain.JobID, contentType string, r io.Reader, maxBytes int64) (int64, error) {
	if job == "" || !plain(string(job)) {
		return 0, domain.Invalid("job", "a result belongs to a job")
	}
	if err := domain.CheckText("content_type", contentType, maxContentType); err != nil {
		return 0, err
	}
	attempt := uuid.NewString()
	err := s.begin(ctx, job, attempt, contentType)
	var size int64
	if err == nil {
		size, err = s.copy(ctx, job, attempt, r, maxBytes)
	}
	if err == nil {
		err = s.complete(ctx, job, attempt, size)
	}
	if errors.Is(err, errSuperseded) {
		return s.superseded(ctx, job)
	}
	if err != nil {
		s.discard(ctx, job, attempt)
		return 0, fmt.Errorf("store the result of job %s: %w", job, err)
	}
	return size, nil
}

// begin makes the attempt the only one that may write chunks. The row's lock
// orders it after every chunk of an earlier attempt, so what is deleted then is all of them.
func (s *Results) begin(ctx context.Context, job domain.JobID, attempt, contentType string) error {
	return s.inTx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, `
INSERT INTO result_meta AS m (job_id, content_type, attempt) VALUES ($1, $2, $3)
ON CONFLICT (job_id) DO UPDATE SET content_type = EXCLUDED.content_type, attempt = EXCLUDED.attempt, bytes = 0, created_at = clock_timestamp()
WHERE NOT m.complete`, string(job), contentType, attempt)
		if err := changed(result, err); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM results WHERE job_id = $1`, string(job))
		return err
	})
}

// copy writes the chunks, each in its own transaction: a slow reader must not keep one open.
func (s *Results) copy(ctx context.Context, job domain.JobID, attempt string, r io.Reader, maxBytes int64) (size int64, err error) {
	buf := make([]byte, chunkSize)
	for seq := 0; ; seq++ {
		n, readErr := io.ReadFull(r, buf)
		if readErr != nil && !errors.Is(readErr, io.EOF) && !errors.Is(readErr, io.ErrUnexpectedEOF) {
			return 0, fmt.Errorf("read it: %w", readErr)
		}
		if size += int64(n); size > maxBytes {
			return 0, &domain.Refusal{Kind: domain.KindInvalid, Code: "result_too_large",
				Reason: fmt.Sprintf("the result has more than the %d bytes that are kept", maxBytes)}
		}
		if n > 0 {
			result, err := s.db.ExecContext(ctx, `
INSERT INTO results (job_id, seq, bytes)
SELECT job_id, $3, $4 FROM result_meta WHERE job_id = $1 AND attempt = $2 AND NOT complete FOR SHARE`, string(job), attempt, seq, buf[:n])
			if err := changed(result, err); err != nil {
				return 0, err
			}
		}
		if readErr != nil {
			return size, nil
		}
	}
}

func (s *Results) complete(ctx context.Context, job domain.JobID, attempt string, size int64) error {
	return changed(s.db.ExecContext(ctx, `
UPDATE result_meta SET complete = true, bytes = $3, created_at = clock_timestamp() WHERE job_id = $1 AND attempt = $2 AND NOT complete`,
		string(job), attempt, size))
}

// changed turns "no row" into errSuperseded: all statements of an attempt have the attempt as a condition.
func changed(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = errSuperseded
	}
	return err
}

func (s *Results) superseded(ctx context.Context, job domain.JobID) (int64, error) {
	info, err := s.info(ctx, job)
	if _, refused := domain.AsRefusal(err); refused {
		return 0, domain.Conflict("result_superseded", "another attempt is storing the result of job %s", job)
	}
	return info.Bytes, err
}

// discard removes what a failed attempt has written, as well as it can: the next
// attempt would remove it, or Prune. The context may have ended, which must not keep the bytes.
func (s *Results) discard(ctx context.Context, job domain.JobID, attempt string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = s.inTx(ctx, func(tx *sqlx.Tx) error {
		err := changed(tx.ExecContext(ctx, `DELETE FROM result_meta WHERE job_id = $1 AND attempt = $2 AND NOT complete`, string(job), attempt))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM results WHERE job_id = $1`, string(job))
		return err
	})
}

func (s *Results) inTx(ctx context.Context, f func(*sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *Results) info(ctx context.Context, job domain.JobID) (ResultInfo, error) {
	var info ResultInfo
	if !plain(string(job)) {
		return info, domain.NotFound("result", string(job))
	}
	err := s.db.GetContext(ctx, &info, `SELECT content_type, bytes FROM result_meta WHERE job_id = $1 AND complete`, string(job))
	if errors.Is(err, sql.ErrNoRows) {
		return info, domain.NotFound("result", string(job))
	}
	if err != nil {
		return info, fmt.Errorf("look for the result of job %s: %w", job, err)
	}
	return info, nil
}

// Open gives a complete result; not_found if there is none (yet, or any more).
// The reader holds one chunk and no transaction; ctx must last as long as it
// is read. One that is pruned meanwhile ends in io.ErrUnexpectedEOF.
func (s *Results) Open(ctx context.Context, job domain.JobID) (ResultInfo, io.ReadCloser, error) {
	info, err := s.info(ctx, job)
	if err != nil {
		return ResultInfo{}, nil, err
	}
	return info, &resultReader{ctx: ctx, db: s.db, job: job, left: info.Bytes}, nil
}

type resultReader struct {
	ctx  context.Context //nolint:containedctx // of Open, as with an http.Request's body
	db   *sqlx.DB
	job  domain.JobID
	seq  int
	left int64 // bytes not yet fetched
	buf  []byte
}

// Read gives bytes of the chunk at hand and fetches the next when it is used up.
func (r *resultReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.buf) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, fmt.Errorf("read the result of job %s: %w", r.job, err)
		}
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

func (r *resultReader) next() error {
	var chunk []byte
	err := r.db.GetContext(r.ctx, &chunk, `SELECT bytes FROM results WHERE job_id = $1 AND seq = $2`, string(r.job), r.seq)
	if errors.Is(err, sql.ErrNoRows) || err == nil && int64(len(chunk)) > r.left {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	r.buf, r.seq, r.left = chunk, r.seq+1, r.left-int64(len(chunk))
	return nil
}

// Close ends the reading; there is nothing to give back.
func (r *resultReader) Close() error {
	r.left, r.buf = 0, nil
	return nil
}

// pruneBatch keeps a transaction short even if every result is large.
const pruneBatch = 20

// Prune deletes results that were stored longer ago than given, and what was
// left by attempts that began longer ago. It says how many, and goes on until
// none is left or ctx ends.
func (s *Results) Prune(ctx context.Context, olderThan time.Duration) (int, error) {
	total := 0
	for {
		n, err := s.pruneSome(ctx, olderThan)
		if err != nil {
			return total, fmt.Errorf("prune results: %w", err)
		}
		if total += n; n < pruneBatch {
			return total, nil
		}
	}
}

func (s *Results) pruneSome(ctx context.Context, olderThan time.Duration) (int, error) {
	var jobs pq.StringArray
	err := s.inTx(ctx, func(tx *sqlx.Tx) error {
		var ids []string
		err := tx.SelectContext(ctx, &ids, `
DELETE FROM result_meta WHERE job_id IN (
  SELECT job_id FROM result_meta WHERE created_at < now() - $1 * interval '1 second' ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING job_id`, olderThan.Seconds(), pruneBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		jobs = ids
		_, err = tx.ExecContext(ctx, `DELETE FROM results WHERE job_id = ANY ($1)`, jobs)
		return err
	})
	return len(jobs), err
}
