package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) resultCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "result JOB", Short: "Fetch a job's result", Args: needs(1, 1),
		Long:              "Writes the result to FILE, or to standard output unless that is a terminal.",
		ValidArgsFunction: p.completeJobs(),
		RunE: p.client(func(c *call, args []string) error {
			if err := c.writable(file); err != nil {
				return err
			}
			id, err := c.job(c.ctx, args[0])
			if err != nil {
				return err
			}
			return c.fetchResult(id, file)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "-", "`FILE` to write; -: standard output")
	return clientFlags(cmd)
}

// writable refuses to write what is no text to a terminal.
func (c *call) writable(file string) error {
	if (file == "-" || file == "") && terminal(c.stdout) {
		return usage("the answer is no text for a terminal: name a file with -f FILE, or redirect standard output")
	}
	return nil
}

func (c *call) fetchResult(id, file string) error {
	if err := c.writable(file); err != nil {
		return err
	}
	res, err := c.api.streams.GetJobResult(c.ctx, id) //nolint:bodyclose // save closes it
	if err != nil {
		return err
	}
	return c.save(res, file)
}

// save writes the body of an answer to a file, or tells its refusal. A file is there whole or not at all.
func (c *call) save(res *http.Response, file string) error {
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err := client.Failure(res, raw); err != nil {
			return err
		}
		return fmt.Errorf("the server answered %s", res.Status)
	}
	if file == "-" || file == "" {
		if _, err := io.Copy(c.stdout, res.Body); err != nil {
			return fmt.Errorf("copy the answer: %w", err)
		}
		return nil
	}
	n, err := writeFile(file, res.Body)
	if err != nil {
		return err
	}
	c.note("Wrote %s (%s, %s).", file, res.Header.Get("Content-Type"), size(n))
	return nil
}

// writeFile writes beside the file and renames, so that nobody sees half of it.
func writeFile(file string, body io.Reader) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+strings.TrimPrefix(filepath.Base(file), ".")+".*")
	if err != nil {
		return 0, noSuchFile(filepath.Dir(file), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	n, err = io.Copy(f, body)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return n, fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return n, fmt.Errorf("write %s: %w", file, err)
	}
	return n, nil
}
