package rrmv1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// The predecessor took numbers and booleans as text, and text as numbers, and
// its clients make use of it.
type (
	looseText string
	looseInt  int
	looseBool bool
)

// UnmarshalJSON takes text, numbers, booleans and null.
func (t *looseText) UnmarshalJSON(b []byte) error {
	text, err := scalar(b)
	*t = looseText(text)
	return err
}

// UnmarshalJSON takes whole numbers, also as text; null and "" leave the default.
func (n *looseInt) UnmarshalJSON(b []byte) error {
	text, err := scalar(b)
	if err != nil || text == "" {
		return err
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v != math.Trunc(v) || math.Abs(v) > math.MaxInt32 {
		return fmt.Errorf("%q is no whole number", text)
	}
	*n = looseInt(v)
	return nil
}

// UnmarshalJSON takes true and false, also as text or as 1 and 0; null and "" leave the default.
func (v *looseBool) UnmarshalJSON(b []byte) error {
	text, err := scalar(b)
	if err != nil {
		return err
	}
	switch strings.ToLower(text) {
	case "": // stays what it is, the default
	case "true", "1", "yes", "y", "on", "t":
		*v = true
	case "false", "0", "no", "n", "off", "f":
		*v = false
	default:
		return fmt.Errorf("%q is neither true nor false", text)
	}
	return nil
}

// scalar is the text of a JSON value that is neither list nor object.
func scalar(b []byte) (string, error) {
	var v any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return strings.TrimSpace(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		return v.String(), nil
	}
	return "", errors.New("a single value was expected, not a list or an object")
}

const maxBody = 1 << 20

// body reads a request's JSON, whatever media type it is called. None is an empty
// object, and unknown fields are nobody's business.
func (c *call) body(into any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fail(http.StatusRequestEntityTooLarge, "a body has at most 1 MiB")
	case err != nil:
		return fail(http.StatusBadRequest, "the body cannot be read")
	case strings.TrimSpace(string(raw)) == "":
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fail(http.StatusBadRequest, "the body is not the JSON that it should be: %v", err)
	}
	return nil
}
