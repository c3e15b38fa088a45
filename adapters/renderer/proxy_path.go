package renderer

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// targetURL is where a request goes, or why it goes nowhere.
func targetURL(r *http.Request, address, prefix string) (*url.URL, *Error) {
	if err := checkAddress(address); err != nil {
		return nil, &Error{Status: http.StatusBadGateway, Code: CodeUnreachable, Reason: "the renderer's address is not known"}
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return nil, &Error{Status: http.StatusMethodNotAllowed, Code: CodeBadMethod, Reason: r.Method + " is not passed on to renderers"}
	}
	escaped, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix)
	if !ok || escaped != "" && escaped[0] != '/' {
		return nil, badPath("it does not begin as it should")
	}
	if escaped == "" {
		escaped = "/"
	}
	plain, refused := checkPath(escaped)
	if refused != nil {
		return nil, refused
	}
	if refused := checkAllowed(r.Method, plain); refused != nil {
		return nil, refused
	}
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, badPath("its escapes are broken")
	}
	return &url.URL{Scheme: "http", Host: address, Path: path, RawPath: escaped}, nil
}

func badPath(why string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeBadPath, Reason: "the path is not passed on: " + why}
}

// checkPath refuses paths that lead up, in any spelling that a renderer might
// come to understand, and returns the plainest form of the others. Escapes may be escaped
// themselves (a model's key may hold a %), so they are taken off until none is left.
func checkPath(escaped string) (plain string, refused *Error) {
	const layers = 4
	plain = escaped
	for range layers {
		for _, s := range segments(plain) {
			if s == "." || s == ".." {
				return "", badPath("it has . or .. in it")
			}
		}
		if !utf8.ValidString(plain) || strings.ContainsFunc(plain, unicode.IsControl) {
			return "", badPath("it has control characters or is not UTF-8")
		}
		next := unescape(plain)
		if next == plain {
			return plain, nil
		}
		plain = next
	}
	return "", badPath("it is escaped too many times over")
}

var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// unescape takes off one layer of escapes and leaves what only looks like some.
func unescape(s string) string {
	return escapes.ReplaceAllStringFunc(s, func(e string) string {
		b, err := strconv.ParseUint(e[1:], 16, 8)
		if err != nil {
			return e // cannot be: two hexadecimal digits
		}
		return string([]byte{byte(b)})
	})
}

// segments splits a path as the most generous of servers might: backslashes
// are slashes, empty segments are none, and ;parameters do not count.
func segments(path string) []string {
	var out []string
	for s := range strings.SplitSeq(strings.ReplaceAll(path, `\`, "/"), "/") {
		s, _, _ = strings.Cut(s, ";")
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, strings.ToLower(s))
		}
	}
	return out
}

// checkAllowed refuses what would act behind rrm's back: ending the renderer,
// declaring it ready, loading and unloading models, and jobs, which belong to others too.
func checkAllowed(method, plain string) *Error {
	reads := method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
	path := segments(plain)
	if len(path) > 0 && path[0] == "v1" {
		path = path[1:]
	}
	if len(path) == 0 {
		return nil
	}
	denied := false
	switch path[0] {
	case "exit", "jobs":
		denied = true
	case "registry", "models":
		denied = !reads
	}
	if !denied {
		return nil
	}
	return &Error{Status: http.StatusForbidden, Code: CodeAdministrated, Reason: fmt.Sprintf("%s of a renderer's %s is for rrm itself, not for sessions", method, path[0])}
}
