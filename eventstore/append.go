package eventstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
)

const appendSQL = `SELECT rrm_append($1, $2, $3::text[], $4::bigint[], $5::text[], $6::int[], $7, $8, $9::text[],
  $10::text[], $11::text[], $12, $13::bigint[], $14::text[], $15::text[], $16)`

// separator stands between documents of JSON, none of which can hold it.
const separator = "\x1f"

// documents makes one text of many documents: for an array's literal every quote would have to be escaped, and read again.
func documents(what string, all []string) (string, error) {
	for i, d := range all {
		if d == "" || strings.Contains(d, separator) {
			return "", dataError{fmt.Errorf("%s %d is no JSON: %.100q", what, i, d)}
		}
	}
	return strings.Join(all, separator), nil
}

// Append writes the whole batch if the head is where the batch expects it, in
// one round trip and one commit, and gives the new head. ErrMoved means that
// nothing was written. After any other error ask Unknown whether it was.
func (l *Log) Append(ctx context.Context, b Batch) (int64, error) {
	args, err := appendArgs(b)
	if err != nil {
		return 0, err
	}
	head, err := within(ctx, func() (int64, error) { return appendOn(ctx, l.appendCall, args) })
	if err != nil {
		return 0, fmt.Errorf("append %d events: %w", len(b.Events), err)
	}
	return head, nil
}

func appendOn(ctx context.Context, stmt *sql.Stmt, args []any) (head int64, err error) {
	if err := stmt.QueryRowContext(ctx, args...).Scan(&head); err != nil {
		return 0, err
	}
	if head < 0 {
		return 0, ErrMoved
	}
	return head, nil
}

// appendArgs lays the batch out as arrays, one for each column.
func appendArgs(b Batch) ([]any, error) {
	n := len(b.Events)
	stream, types, data, meta, subjects := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	version, schema := make([]int64, n), make([]int64, n)
	for i, e := range b.Events {
		m, err := json.Marshal(e.Meta)
		if err != nil {
			return nil, dataError{fmt.Errorf("write the meta data of event %s: %w", e.Type, err)}
		}
		s, err := pq.StringArray(e.Subjects).Value()
		if err != nil {
			return nil, dataError{fmt.Errorf("write the subjects of event %s: %w", e.Type, err)}
		}
		subjects[i] = "{}"
		if text, ok := s.(string); ok {
			subjects[i] = text
		}
		stream[i], version[i], types[i], schema[i] = string(e.Stream), e.Version, e.Type, int64(max(e.Schema, 1))
		data[i], meta[i] = string(e.Data), string(m)
	}
	n = len(b.Answers)
	cmd, hash, answer, position := make([]string, n), make([]string, n), make([]string, n), make([]int64, n)
	for i, a := range b.Answers {
		cmd[i], hash[i], answer[i], position[i] = string(a.Command), a.Hash, string(a.Body), a.Position
	}
	n = len(b.Rows)
	view, id, body := make([]string, n), make([]string, n), make([]string, n)
	for i, r := range b.Rows {
		if !slices.Contains(views, r.View) {
			return nil, dataError{fmt.Errorf("there is no live view %q", r.View)}
		}
		view[i], id[i], body[i] = r.View, r.ID, string(r.Body)
	}
	var texts [4]string
	for i, d := range []struct {
		what string
		all  []string
	}{{"the data of event", data}, {"the meta data of event", meta}, {"answer", answer}, {"the body of row", body}} {
		var err error
		if texts[i], err = documents(d.what, d.all); err != nil {
			return nil, err
		}
	}
	return []any{
		b.Expected, b.Epoch,
		pq.StringArray(stream), pq.Int64Array(version), pq.StringArray(types), pq.Int64Array(schema), texts[0], texts[1], pq.StringArray(subjects),
		pq.StringArray(cmd), pq.StringArray(hash), texts[2], pq.Int64Array(position),
		pq.StringArray(view), pq.StringArray(id), texts[3],
	}, nil
}

// Known looks answers up.
type Known func([]domain.CommandID) (map[domain.CommandID]Answer, error)

// Decide is called by Locked with what changed since the caller last looked;
// known looks up under the same lock.
type Decide func(d Delta, known Known) (Batch, error)

// Locked takes the head's lock first, so that nobody can move it between the
// decision and the append: four round trips and a held lock, for a caller who
// keeps losing the race. decide runs on the caller's goroutine; its error is
// returned as it is and nothing is written. A batch without events and answers
// writes nothing and is no error. Expected and Epoch of the batch are set here.
// The result is the head after all.
func (l *Log) Locked(ctx context.Context, since int64, decide Decide) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // gives the lock back even if the server does not answer
	tx, err := within(ctx, func() (*sql.Tx, error) { return l.db.BeginTx(ctx, nil) })
	if err != nil {
		return 0, fmt.Errorf("begin to append: %w", err)
	}
	committed := false
	defer func() {
		if !committed {
			_, _ = within(ctx, func() (struct{}, error) { return struct{}{}, tx.Rollback() })
		}
	}()

	d, err := within(ctx, func() (Delta, error) { return delta(ctx, tx.StmtContext(ctx, l.lockCall), since) })
	if err != nil {
		return 0, fmt.Errorf("lock the head of the log: %w", err)
	}
	b, err := decide(d, func(ids []domain.CommandID) (map[domain.CommandID]Answer, error) {
		return l.answers(ctx, tx.StmtContext(ctx, l.answersCall), ids)
	})
	if err != nil {
		return 0, err
	}
	if len(b.Events) == 0 && len(b.Answers) == 0 {
		return d.Position, nil
	}
	b.Expected, b.Epoch = d.Position, d.Epoch
	args, err := appendArgs(b)
	if err != nil {
		return 0, err
	}
	head, err := within(ctx, func() (int64, error) {
		head, err := appendOn(ctx, tx.StmtContext(ctx, l.appendCall), args)
		if err != nil {
			return 0, err
		}
		return head, tx.Commit()
	})
	committed = err == nil
	if errors.Is(err, ErrMoved) {
		return 0, errors.New("append under the lock: the head moved although it was locked")
	}
	if err != nil {
		return 0, fmt.Errorf("append %d events under the lock: %w", len(b.Events), err)
	}
	return head, nil
}
