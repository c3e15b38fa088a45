package pool

import (
	"strings"
	"unicode/utf8"
)

// Bounds of what is kept of the text in a report, in bytes.
const (
	maxOutput = 2048 // of a failed renderer's last output, the end of it
	maxReason = 1024
	maxWord   = 256 // addresses, nodes, codes, capabilities
	maxWords  = 64
)

// cleaned is a report with its text fit for the log. What a renderer or a
// launcher says is neither checked nor short, and text that the log cannot
// hold (NUL, broken UTF-8) must not keep a fact out of it.
func cleaned(c Command) Command {
	switch c := c.(type) {
	case ReportStarting:
		c.Launched.Address, c.Launched.Node = clean(c.Launched.Address, maxWord), clean(c.Launched.Node, maxWord)
		return c
	case ReportReady:
		c.Address, c.Capabilities, c.JobKinds = clean(c.Address, maxWord), cleanAll(c.Capabilities), cleanAll(c.JobKinds)
		return c
	case ReportFailed:
		c.Code, c.Reason, c.Output = clean(c.Code, maxWord), clean(c.Reason, maxReason), clean(tail(c.Output, maxOutput), maxOutput)
		return c
	case ReportLost:
		c.Reason, c.Output = clean(c.Reason, maxReason), clean(tail(c.Output, maxOutput), maxOutput)
		return c
	case ReportAdvice:
		c.Reason, c.Problem = clean(c.Reason, maxAdvisedReason), clean(c.Problem, maxAdvisedReason)
		return c
	case ReportModelFailed:
		c.Code, c.Reason = clean(c.Code, maxWord), clean(c.Reason, maxReason)
		return c
	case ReportJobFailed:
		c.Code, c.Reason = clean(c.Code, maxWord), clean(c.Reason, maxReason)
		return c
	case ReportJobGathered:
		c.Code, c.Reason = clean(c.Code, maxWord), clean(c.Reason, maxReason)
		c.Result.ContentType = clean(c.Result.ContentType, maxWord)
		return c
	case ReportJobSucceeded:
		c.Result.ContentType = clean(c.Result.ContentType, maxWord)
		return c
	}
	return c
}

func cleanAll(words []string) []string {
	var all []string
	for _, w := range words[:min(len(words), maxWords)] {
		all = append(all, clean(w, maxWord))
	}
	return all
}

// clean takes out what JSON in the log cannot hold and cuts what is too long.
func clean(s string, most int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "?")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// tail is the end of a text, from a whole character on.
func tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[len(s)-most:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}
