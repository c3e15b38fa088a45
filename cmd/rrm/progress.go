package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// progress tells how something that takes long goes on: on a terminal in one
// line that is rewritten, else in one line for each change.
type progress struct {
	w      io.Writer
	live   bool
	indent string
	key    string
	shown  bool
}

func (p *program) progress() *progress { return &progress{w: p.stderr, live: terminal(p.stderr)} }

// say shows a line. What changes all the time, such as an estimate, belongs in
// the text; key changes with what is worth a line of its own.
func (g *progress) say(key, format string, args ...any) {
	line := clean(fmt.Sprintf(format, args...), false)
	if !g.live {
		if key != g.key {
			_, _ = fmt.Fprintln(g.w, g.indent+line)
		}
		g.key = key
		return
	}
	if width := g.width(); len([]rune(line)) >= width {
		line = string([]rune(line)[:width-1])
	}
	_, _ = fmt.Fprint(g.w, "\r\x1b[K"+line)
	g.key, g.shown = key, true
}

// done leaves the line.
func (g *progress) done() {
	if g.shown {
		_, _ = fmt.Fprintln(g.w)
		g.shown = false
	}
}

func (g *progress) width() int {
	f, ok := g.w.(*os.File)
	if !ok {
		return 80
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		return 80
	}
	return width
}
