package wrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// fieldError blames a field of a job's request.
type fieldError struct{ field, reason string }

func (e *fieldError) Error() string { return e.field + " " + e.reason }

// Bounds and defaults of the fields that every wrapper knows; those of the
// reference renderer where it has them.
const (
	maxSide   = 65536
	maxFrames = 10_000
	maxFPS    = 1000
	maxValue  = 1024 // bytes of any other field's value
)

// numberFields are the spec's fields with a meaning of their own.
var numberFields = map[string]struct {
	low, high float64
	whole     bool
	usual     string
}{
	nameWidth:  {1, maxSide, true, "640"},
	nameHeight: {1, maxSide, true, "360"},
	nameFrame:  {1, maxFrames, true, "1"},
	nameFrames: {1, maxFrames, true, "24"},
	nameFPS:    {0.01, maxFPS, false, "24"},
}

func isNumberField(name string) bool { _, ok := numberFields[name]; return ok }

const (
	fieldInput    = "input"
	fieldFramesOf = "frames_of"
)

// rules say what a spec may hold.
type rules struct {
	fields   []string                  // those of {spec.NAME}
	allow    map[string]*regexp.Regexp // by field, or model: instead of the usual rule
	defaults map[string]string
}

var (
	// A name cannot be an option, a path, an address or a list of any of them.
	usualName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	usualModel = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._:@/+-]*$`)
	jobID      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
)

// mayDash tells whether the operator has said what the values of a
// placeholder are, and so whether they may begin with '-'.
func (r *rules) mayDash(name string) bool {
	return r.allow[strings.TrimPrefix(name, specPrefix)] != nil
}

type jsonType int

const (
	kindOfOther jsonType = iota
	kindOfNumber
	kindOfBool
	kindOfText
)

func jsonKind(raw []byte) jsonType {
	raw = bytes.TrimSpace(raw)
	switch {
	case !json.Valid(raw):
	case raw[0] == '"':
		return kindOfText
	case raw[0] == 't', raw[0] == 'f':
		return kindOfBool
	case raw[0] == '-', raw[0] >= '0' && raw[0] <= '9':
		return kindOfNumber
	}
	return kindOfOther
}

// value checks the value of one field and gives it as the text that the program gets.
func (r *rules) value(name string, raw []byte) (string, error) {
	raw = bytes.TrimSpace(raw)
	if b, ok := numberFields[name]; ok {
		return number(name, raw, b.low, b.high, b.whole)
	}
	text := string(raw)
	usual := usualName
	switch jsonKind(raw) {
	case kindOfText:
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", &fieldError{specPrefix + name, "is no text"}
		}
	case kindOfNumber:
		if x, err := strconv.ParseFloat(text, 64); err != nil || math.IsInf(x, 0) {
			return "", &fieldError{specPrefix + name, "is no number that can be used"}
		}
		usual = nil
	case kindOfBool:
	case kindOfOther:
		return "", &fieldError{specPrefix + name, "must be a number, a text, true or false"}
	}
	return text, r.checkText(specPrefix+name, text, r.allow[name], usual)
}

// checkText holds a value against the operator's pattern, or else the usual one (nil: none).
func (r *rules) checkText(field, text string, allowed, usual *regexp.Regexp) error {
	if len(text) > maxValue || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return &fieldError{field, fmt.Sprintf("must be at most %d bytes of text without control characters", maxValue)}
	}
	switch {
	case allowed != nil && !allowed.MatchString(text):
		return &fieldError{field, fmt.Sprintf("must match %s", strings.TrimSuffix(strings.TrimPrefix(allowed.String(), "^(?:"), ")$"))}
	case allowed == nil && usual != nil && !usual.MatchString(text):
		return &fieldError{field, "must be a name: letters, digits and ._- only, not beginning with one of .-"}
	}
	return nil
}

func number(name string, raw []byte, low, high float64, whole bool) (string, error) {
	text := string(raw)
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case jsonKind(raw) != kindOfNumber || err != nil:
		return "", &fieldError{specPrefix + name, "must be a number"}
	case x < low || x > high:
		return "", &fieldError{specPrefix + name, fmt.Sprintf("must be %g to %g", low, high)}
	case whole && x != math.Trunc(x):
		return "", &fieldError{specPrefix + name, "must be a whole number"}
	case whole:
		return strconv.FormatInt(int64(x), 10), nil
	}
	return strconv.FormatFloat(x, 'f', -1, 64), nil // without exponent, which not every program reads
}

// work is a job as it was understood.
type work struct {
	id, kind, model string
	values          map[string]string // of placeholders, without those of places
	frames          int               // how many were asked for
	input           string            // path of the input file; empty: none, or text
	text            string            // of the input
	framesOf        string            // job whose frames are wanted; empty: the one that the job comes after
}

// understand reads the body of POST /v1/jobs/{id}. model is used where the body has none.
func (c *config) understand(id, model string, body []byte) (*work, error) {
	if !jobID.MatchString(id) {
		return nil, &fieldError{"id", "must be 1 to 128 letters, digits, or one of ._:- after the first"}
	}
	var request struct {
		Kind  string                     `json:"kind"`
		Model *string                    `json:"model"`
		Spec  map[string]json.RawMessage `json:"spec"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&request); err != nil {
		return nil, badBody(err)
	}
	if request.Model != nil {
		model = *request.Model
	}
	w := &work{id: id, kind: request.Kind, model: model, values: map[string]string{nameID: id}}
	if !slices.Contains(c.Kinds, w.kind) {
		return nil, unsupportedKind(w.kind, c.Kinds)
	}
	if err := c.readSpec(w, request.Spec); err != nil {
		return nil, err
	}
	if c.command.uses(nameModel) {
		if err := c.readModel(w); err != nil {
			return nil, err
		}
	}
	if err := c.resolveInput(w); err != nil {
		return nil, err
	}
	return w, c.tryOut(w)
}

func badBody(err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind):
		return &fieldError{kind.Field, "is of the wrong type"}
	case errors.As(err, &syntax):
		return &fieldError{"", "the body is not JSON: " + err.Error()}
	}
	return &fieldError{"", "the body cannot be read: " + strings.TrimPrefix(err.Error(), "json: ")}
}

func (c *config) readSpec(w *work, spec map[string]json.RawMessage) error {
	names := make([]string, 0, len(spec))
	for name := range spec {
		names = append(names, name)
	}
	slices.Sort(names) // the same fault is blamed each time
	for _, name := range names {
		var err error
		text := ""
		switch {
		case name == fieldInput && c.FromSpec:
			w.text, err = c.inputText(spec[name])
		case name == fieldFramesOf && c.server != nil:
			if json.Unmarshal(spec[name], &w.framesOf) != nil || !jobID.MatchString(w.framesOf) {
				err = &fieldError{specPrefix + name, "must be the id of a job"}
			}
		case isNumberField(name), slices.Contains(c.rules.fields, name):
			text, err = c.rules.value(name, spec[name])
			c.rules.set(w, name, text)
		default:
			err = &fieldError{specPrefix + name, "unknown field"}
		}
		if err != nil {
			return err
		}
	}
	c.fill(w)
	var err error
	if w.frames, err = strconv.Atoi(w.values[nameFrames]); err != nil {
		return fmt.Errorf("read the number of frames: %w", err)
	}
	return nil
}

// set keeps a value under all names by which the command may ask for it.
func (r *rules) set(w *work, name, text string) {
	if isNumberField(name) {
		w.values[name] = text
	}
	if slices.Contains(r.fields, name) {
		w.values[specPrefix+name] = text
	}
}

// fill puts in the defaults: the operator's, then the usual ones. An image is
// one frame of one, unless the job says otherwise.
func (c *config) fill(w *work) {
	for name, text := range c.rules.defaults {
		if w.kind == kindImage && name == nameFrames {
			continue
		}
		if w.values[name] == "" && w.values[specPrefix+name] == "" {
			c.rules.set(w, name, text)
		}
	}
	for name, f := range numberFields {
		text := f.usual
		if w.kind == kindImage && name == nameFrames {
			text = "1"
		}
		if w.values[name] == "" {
			c.rules.set(w, name, text)
		}
	}
}

func (c *config) readModel(w *work) error {
	if err := c.rules.checkText("model", w.model, c.rules.allow[nameModel], usualModel); err != nil {
		return err
	}
	if c.rules.allow[nameModel] == nil && slices.Contains(strings.Split(w.model, "/"), "..") {
		return &fieldError{"model", "must not have .. in it"}
	}
	w.values[nameModel] = w.model
	return nil
}

// tryOut expands the command once with places that will be others, so that
// what is wrong with a job is told when it comes.
func (c *config) tryOut(w *work) error {
	values := map[string]string{nameInput: "/", nameOutput: "/", nameDir: "/", nameFramesDir: "/"}
	for name, text := range w.values {
		values[name] = text
	}
	_, _, err := c.command.expand(values, c.rules.mayDash)
	return err
}
