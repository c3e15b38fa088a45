// Package migrations holds the database schema, one SQL file for each step, and
// applies it.
package migrations

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
)

//go:embed *.sql
var files embed.FS

// Fingerprint names this schema: another as soon as a letter of any migration changes.
func Fingerprint() string {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		panic(err) // the pattern is a constant
	}
	h := sha256.New()
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			panic(err) // embedded files cannot fail to be read
		}
		sum := sha256.Sum256(b)
		h.Write([]byte(name))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
