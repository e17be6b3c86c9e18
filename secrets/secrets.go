// Package secrets keeps what nobody may read but those that it is for: the secrets of webhooks and the keys of models'
// servers, by the names that Secret Manager has for them.
//
// There is no Secret Manager's API: a version is a file below a directory of the data directory, which the
// operator of the platform puts there. Who may have which secret, its callers decide.
package secrets

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"giggle/fault"
)

// maxSize is the most bytes of a secret (https://cloud.google.com/secret-manager/quotas).
const maxSize = 64 << 10

var form = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^projects/[a-z0-9-]{1,30}/secrets/[a-zA-Z0-9_-]{1,255}/versions/(latest|[0-9]{1,9})$`)
})

// IsName reports whether a text is "projects/PROJECT/secrets/SECRET/versions/VERSION".
func IsName(s string) bool { return form().MatchString(s) }

// Name returns the name of a version of a project's secret.
func Name(project, secret, version string) string {
	return "projects/" + project + "/secrets/" + secret + "/versions/" + version
}

// Secrets are the secrets of a platform.
type Secrets struct{ dir string }

// Open opens the secrets in a directory, which nobody else can read then, whatever it was before.
func Open(dir string) (*Secrets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Secrets{dir}, os.Chmod(dir, 0o700)
}

// Get returns what is in a version of a secret, without line ends behind it. It fails with NotFound.
func (s *Secrets) Get(name string) ([]byte, error) {
	none := fault.New(fault.NotFound, "There is no secret version %.300s.", name)
	if !IsName(name) {
		return nil, none
	}
	f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxSize))
	return bytes.TrimRight(b, "\r\n"), err
}
