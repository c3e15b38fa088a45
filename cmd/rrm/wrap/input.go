package wrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// inputText reads spec.input.
func (c *config) inputText(raw json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || text == "" {
		return "", &fieldError{specPrefix + fieldInput, "must be the text of the input"}
	}
	if int64(len(text)) > c.MaxInput {
		return "", &fieldError{specPrefix + fieldInput, fmt.Sprintf("is longer than %d KiB", c.MaxInput>>10)}
	}
	return text, nil
}

// resolveInput finds the file of a command with {input}, unless its text came with the job.
func (c *config) resolveInput(w *work) error {
	if !c.command.uses(nameInput) || w.text != "" {
		return nil
	}
	if c.InputDir == "" {
		return &fieldError{specPrefix + fieldInput, "is missing: it is the text of the input"}
	}
	path, err := findInput(c.InputDir, w.model)
	w.input = path
	return err
}

// findInput gives the path of the file that a model key names below dir. The
// key is a path relative to it, with no way out: os.Root takes no absolute
// path and follows neither ".." nor a symbolic link beyond it. Who can write into dir can change a file
// after this look; that is the operator's to keep.
func findInput(dir, key string) (path string, err error) {
	missing := &failure{status: statusUnprocessable, Code: codeModelNotFound, Reason: fmt.Sprintf("there is no input file %q", key), Field: "model"}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("open the input directory: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	info, err := root.Stat(key)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("look at the input: %w", err)
	case err != nil || !info.Mode().IsRegular():
		return "", missing // that it lies outside is nobody's business
	}
	return filepath.Join(dir, key), nil
}
