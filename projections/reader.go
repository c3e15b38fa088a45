package projections

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Reader answers questions from the live views and the log. What a command
// wrote is seen by every call that begins after the command was answered.
// Its methods may be called from many goroutines.
//
// Refusals are *domain.Refusal: not_found for what does not exist, invalid for
// a cursor, limit or state that is none.
type Reader struct {
	db   querier
	log  *eventstore.Log
	out  *Results
	now  func() time.Time // for estimates only; leases go by the database's clock
	tail int64            // maxTail; tests have less
}

// querier is what the reader needs of a database; tests put one in between that explains every query.
type querier interface {
	SelectContext(ctx context.Context, dest any, query string, args ...any) error
	QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)
}

// NewReader reads the live views of db and the log that they were folded from.
func NewReader(db *sqlx.DB, log *eventstore.Log) *Reader {
	return &Reader{db: db, log: log, out: NewResults(db), now: time.Now, tail: maxTail}
}

// The bounds of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 500
)

// Page is a part of a list, newest first. Limit is 1 to MaxLimit, 0 means
// DefaultLimit; Cursor is what the page before gave as next, or empty.
type Page struct {
	Limit  int
	Cursor string
}

// cursorPrefix has a version, so that a cursor of another release is refused and not misread.
const cursorPrefix = "1."

func encodeCursor(seq int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatInt(seq, 10)))
}

func decodeCursor(s string) (int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	text, ok := strings.CutPrefix(string(b), cursorPrefix)
	seq, convErr := strconv.ParseInt(text, 10, 64)
	// A cursor has one spelling, so "+7" or stray bits at the end are no cursors.
	if err != nil || !ok || convErr != nil || encodeCursor(seq) != s {
		return 0, domain.Invalid("cursor", "the cursor is not one that a list gave as next_cursor")
	}
	return seq, nil
}

func (p Page) limit() (int, error) {
	switch {
	case p.Limit == 0:
		return DefaultLimit, nil
	case p.Limit < 0 || p.Limit > MaxLimit:
		return 0, domain.Invalid("limit", "limit is between 1 and %d, not %d", MaxLimit, p.Limit)
	}
	return p.Limit, nil
}

// list is the query of one page of a live view, newest first.
type list struct {
	table string
	limit int
	conds []string
	args  []any
	parts []string // indexes of what has ended and of what has not are apart: such a list is read from each and merged
}

func newList(table string, p Page) (*list, error) {
	limit, err := p.limit()
	if err != nil {
		return nil, err
	}
	l := &list{table: table, limit: limit}
	if p.Cursor != "" {
		seq, err := decodeCursor(p.Cursor)
		if err != nil {
			return nil, err
		}
		l.where("seq < $?", seq)
	}
	return l, nil
}

// where adds a condition on one argument, written $?.
func (l *list) where(cond string, arg any) {
	l.args = append(l.args, arg)
	l.conds = append(l.conds, strings.ReplaceAll(cond, "$?", "$"+strconv.Itoa(len(l.args))))
}

// equal filters by a column that bears the filter's name. Text that Postgres
// could not even read matches nothing.
func (l *list) equal(column, value string) {
	switch {
	case value == "":
	case !plain(value):
		l.conds = append(l.conds, "false")
	default:
		l.where(column+" = $?", value)
	}
}

// plain says that Postgres can read the text. What it cannot read, it cannot have stored.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

const (
	partLive  = "NOT ended"
	partEnded = "ended"
)

// state filters by a state, if one is given, and refuses one that does not exist.
func (l *list) state(state string, live, ended []string) error {
	switch {
	case state == "":
		return nil
	case slices.Contains(live, state):
		l.parts = []string{partLive}
	case slices.Contains(ended, state):
		l.parts = []string{partEnded}
	default:
		return domain.Invalid("state", "there is no state %q; the states are %s", state, strings.Join(slices.Concat(live, ended), ", "))
	}
	l.where("state = $?", state)
	return nil
}

// query gives the page's rows and one more, which says that there is a next page.
func (l *list) query() string {
	parts := l.parts
	if len(parts) == 0 {
		parts = []string{"true"}
	}
	tail := fmt.Sprintf(" ORDER BY seq DESC LIMIT %d", l.limit+1)
	var branches []string
	for _, part := range parts {
		conds := strings.Join(append(slices.Clone(l.conds), part), " AND ")
		branches = append(branches, "(SELECT * FROM "+l.table+" WHERE "+conds+tail+")")
	}
	return "SELECT * FROM (" + strings.Join(branches, " UNION ALL ") + ") AS parts" + tail
}

// cut takes the extra row off and makes the cursor of the next page from the last row that stays.
func cut[T any](rows []T, limit int, seq func(*T) int64) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	rows = rows[:limit]
	return rows, encodeCursor(seq(&rows[limit-1]))
}

// bodies reads rows of one jsonb column. The result is never nil, so that an empty list is [] in JSON.
func bodies[T any](ctx context.Context, db querier, query string, args ...any) ([]T, error) {
	var raw [][]byte
	if err := db.SelectContext(ctx, &raw, query, args...); err != nil {
		return nil, err
	}
	out := make([]T, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			return nil, fmt.Errorf("read a row's body: %w", err)
		}
	}
	return out, nil
}

func names[S ~string](all ...S) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = string(s)
	}
	return out
}
