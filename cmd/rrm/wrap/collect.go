package wrap

import (
	"archive/zip"
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// contentTypes are those of the extensions of pictures and videos.
var contentTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
	".tif": "image/tiff", ".tiff": "image/tiff", ".exr": "image/x-exr", ".hdr": "image/vnd.radiance", ".bmp": "image/bmp",
	".ppm": "image/x-portable-pixmap", ".pgm": "image/x-portable-graymap", ".tga": "image/x-tga", ".avif": "image/avif", ".jxl": "image/jxl",
	".mp4": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".avi": "video/x-msvideo", ".ogv": "video/ogg",
	".zip": "application/zip",
}

func contentTypeOf(name string) string {
	if t, ok := contentTypes[strings.ToLower(filepath.Ext(name))]; ok {
		return t
	}
	return "application/octet-stream"
}

// collect makes the job's result of what the program wrote and says what it is.
func (t *task) collect() (contentType string, err error) {
	if t.kind == kindFrames {
		return "application/zip", t.collectFrames()
	}
	path, err := output(t.out, t.outputName())
	if err != nil {
		return "", err
	}
	if err := os.Rename(path, t.job.result()); err != nil {
		return "", fmt.Errorf("keep the result: %w", err)
	}
	if t.m.cfg.ContentType != "" {
		return t.m.cfg.ContentType, nil
	}
	return contentTypeOf(path), nil
}

// output is the file that a run wrote: the one that it was told to, or else the
// only one, for there are programs that make a name of their own of what they are told.
func output(dir, name string) (string, error) {
	all, err := outputs(dir)
	if err != nil {
		return "", err
	}
	if i := slices.Index(all, name); i >= 0 {
		return filepath.Join(dir, name), nil
	}
	if len(all) == 1 {
		return filepath.Join(dir, all[0]), nil
	}
	return "", &failure{Code: codeUnsupported, Reason: fmt.Sprintf("the program ended well, but wrote no %s", name)}
}

// outputs are the names of the regular files in a directory that hold
// something. A link could lead to a file that is not the job's.
func outputs(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the output: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("look at the output: %w", err)
		}
		if info.Mode().IsRegular() && info.Size() > 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// collectFrames makes the archive of all frames in their order.
func (t *task) collectFrames() error {
	var paths []string
	var err error
	if t.m.cfg.PerFrame {
		for i := range t.frames {
			path, err := output(t.frameDir(i), t.frameName(i))
			if err != nil {
				return err
			}
			paths = append(paths, path)
		}
	} else if paths, err = t.numbered(); err != nil {
		return err
	}
	return writeArchive(t.job.result(), paths)
}

var lastNumber = regexp.MustCompile(`([0-9]+)[^0-9]*$`)

// numbered are the files that one run wrote, in the order of the last number in their names.
func (t *task) numbered() ([]string, error) {
	names, err := outputs(t.out)
	if err != nil {
		return nil, err
	}
	type numberedFile struct {
		path string
		n    int
	}
	var files []numberedFile
	ext := filepath.Ext(t.m.cfg.FramesOutput)
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, ext)
		found := lastNumber.FindStringSubmatch(stem)
		if !ok || found == nil {
			continue
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			continue // no number of a frame has so many digits
		}
		files = append(files, numberedFile{filepath.Join(t.out, name), n})
	}
	slices.SortFunc(files, func(a, b numberedFile) int { return cmp.Compare(a.n, b.n) })
	var paths []string
	for i, f := range files {
		if i > 0 && files[i-1].n == f.n {
			return nil, &failure{Code: codeUnsupported, Reason: fmt.Sprintf("the program wrote frame %d twice", f.n)}
		}
		paths = append(paths, f.path)
	}
	asked := t.m.cfg.command.uses(nameFrames) // else the program has its own number
	if len(paths) == 0 || asked && len(paths) != t.frames {
		return nil, &failure{Code: codeUnsupported, Reason: fmt.Sprintf("the program ended well, but wrote %d of %d frames", len(paths), t.frames)}
	}
	return paths, nil
}

// writeArchive makes a zip of frame_0001.png, ..., stored as they are: they
// are compressed already. It carries no times, so the same frames give the same bytes.
func writeArchive(to string, paths []string) (err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	defer func() {
		if cerr := f.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the archive: %w", cerr))
		}
	}()
	b := bufio.NewWriterSize(f, 1<<18)
	z := zip.NewWriter(b)
	for i, path := range paths {
		name := fmt.Sprintf("frame_%04d%s", i+1, strings.ToLower(filepath.Ext(path)))
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		if err := copyFile(w, path); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
	}
	if err := errors.Join(z.Close(), b.Flush()); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}
