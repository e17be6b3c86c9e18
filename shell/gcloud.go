package shell

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // gcloud keeps its accounts in SQLite; this is not the platform's store
)

// writeGcloud makes gcloud's configuration directory: an account that is signed in and a configuration that names it.
// What the user has set there since is kept.
func (s *Session) writeGcloud(ctx context.Context) error {
	dir := filepath.Join(s.Dir, gcloudDir)
	if err := os.MkdirAll(filepath.Join(dir, "configurations"), 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, adcFile), s.credentials(), 0o600); err != nil {
		return err
	}
	if err := s.writeAccount(ctx, filepath.Join(dir, "credentials.db")); err != nil {
		return fmt.Errorf("gcloud's credentials: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "active_config")); err != nil {
		if err := writeFile(filepath.Join(dir, "active_config"), []byte("default"), 0o600); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, "configurations", "config_default")
	have, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writeFile(path, []byte("[core]\naccount = "+s.Owner+"\nproject = "+s.Project+"\n"), 0o600)
	}
	if err == nil && !strings.Contains(string(have), "account = "+s.Owner) {
		err = fmt.Errorf("%s is signed in as somebody else; remove the directory to sign in anew", dir)
	}
	return err
}

// writeAccount puts the account into gcloud's table of credentials.
func (s *Session) writeAccount(ctx context.Context, file string) (err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS "credentials" (account_id TEXT PRIMARY KEY, value BLOB)`); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `INSERT OR REPLACE INTO "credentials" (account_id, value) VALUES (?, ?)`, s.Owner, string(s.credentials()))
	return errors.Join(err, os.Chmod(file, 0o600))
}
