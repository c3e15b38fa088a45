package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// show prints the API's own words with -o json, else what people read.
func (c *call) show(raw []byte, people func()) error {
	if !c.json {
		people()
		return nil
	}
	return writeJSON(c.stdout, raw)
}

func writeJSON(w io.Writer, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	b.WriteByte('\n')
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

// style is light: columns and nothing else.
func style() table.Style {
	s := table.StyleDefault
	s.Box = table.BoxStyle{PaddingRight: "  "}
	s.Options = table.Options{}
	s.Format = table.FormatOptions{Header: text.FormatUpper, Row: text.FormatDefault}
	return s
}

// table prints rows under a header; empty says what it means that there is none.
func (p *program) table(empty string, header []string, rows [][]string) {
	if len(rows) == 0 {
		_, _ = fmt.Fprintln(p.stdout, empty)
		return
	}
	t := table.NewWriter()
	t.SetStyle(style())
	line := func(cells []string, nothing string) table.Row {
		var r table.Row
		for _, cell := range cells {
			r = append(r, clean(yes(cell == "", nothing, cell), false))
		}
		return r
	}
	t.AppendHeader(line(header, ""))
	for _, r := range rows {
		t.AppendRow(line(r, "-"))
	}
	for l := range strings.SplitSeq(t.Render(), "\n") {
		_, _ = fmt.Fprintln(p.stdout, strings.TrimRight(l, " "))
	}
}

// details prints one thing, a line for each field that it has.
func (p *program) details(fields [][2]string) {
	width := 0
	for _, f := range fields {
		if f[1] != "" {
			width = max(width, utf8.RuneCountInString(f[0]))
		}
	}
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		value := strings.ReplaceAll(clean(f[1], true), "\n", "\n"+strings.Repeat(" ", width+2))
		_, _ = fmt.Fprintf(p.stdout, "%-*s  %s\n", width, f[0], value)
	}
}

func (p *program) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stdout, format+"\n", args...)
}

// note says on stderr what is not part of the answer.
func (p *program) note(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stderr, format+"\n", args...)
}

// clean takes out what would steer a terminal: texts come from renderers and
// other clients. Tabs stay, line ends where lines may be.
func clean(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' && lines || r == '\t':
			return r
		case r == '\n':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// idLength is how much of a long identifier a table shows: its end, for the
// beginning is a time, the same for all that was made together.
const idLength = 8

// id shortens an identifier unless --wide was given. Commands take both forms.
func (c *call) id(id string) string {
	if c.wide || len(id) != fullID {
		return id
	}
	return id[len(id)-idLength:]
}

// text shortens a long text unless --wide was given: a model's end tells more than its middle.
func (c *call) text(s string) string { return c.shortened(s, 40) }

// remark is text for a last column, which may be wider: why, and what is waited for.
func (c *call) remark(s string) string { return c.shortened(s, 120) }

func (c *call) shortened(s string, most int) string {
	r := []rune(s)
	if c.wide || len(r) <= most {
		return s
	}
	return string(r[:most/2-1]) + "…" + string(r[len(r)-most/2:])
}

// ago says how long ago, or how far ahead, a time is.
func (p *program) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := p.now().Sub(t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// span is a duration in one unit, or two where one would be coarse.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

// seconds are read in the unit that suits them.
func seconds(s float64) string {
	switch {
	case s <= 0:
		return "0 s"
	case s < 0.0995:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 9.95:
		return fmt.Sprintf("%.1f s", s)
	case s < 119.5:
		return fmt.Sprintf("%.0f s", s)
	}
	return span(time.Duration(s * float64(time.Second)))
}

// learned is seconds with a count: nothing is said of what was never seen.
func learned(n int, s float64) string {
	if n == 0 {
		return ""
	}
	return seconds(s)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

func yes(b bool, word, other string) string {
	if b {
		return word
	}
	return other
}

// size is bytes for people.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// terminal says whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
