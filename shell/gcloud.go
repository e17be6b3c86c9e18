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
	if err := s.writeBoto(filepath.Join(dir, "legacy_credentials", s.Owner)); err != nil {
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
	if err != nil {
		return err
	}
	return writeFile(path, []byte(signedIn(string(have), s.Owner)), 0o600)
}

// writeBoto writes what `gcloud auth login` does for gsutil, which gcloud 528 leads there by BOTO_PATH.
func (s *Session) writeBoto(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := "[OAuth2]\nclient_id = " + clientID + "\nclient_secret = " + clientSecret +
		"\n\n[Credentials]\ngs_oauth2_refresh_token = " + s.RefreshToken + "\n"
	return writeFile(filepath.Join(dir, ".boto"), []byte(text), 0o600)
}

// signedIn is a configuration of gcloud's with an account: the one that it has, or the owner where `gcloud auth revoke`
// has left none.
func signedIn(config, owner string) string {
	var core bool
	for line := range strings.Lines(config) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "["):
			core = line == "[core]"
		case core && strings.TrimSpace(name) == "account":
			return config
		}
	}
	if before, after, ok := strings.Cut(config, "[core]\n"); ok {
		return before + "[core]\naccount = " + owner + "\n" + after
	}
	return "[core]\naccount = " + owner + "\n\n" + config
}

// writeAccount puts the account into gcloud's table of credentials.
func (s *Session) writeAccount(ctx context.Context, file string) (err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx,
		`CREATE TABLE IF NOT EXISTS "credentials" (account_id TEXT PRIMARY KEY, value BLOB)`); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `INSERT OR REPLACE INTO "credentials" (account_id, value) VALUES (?, ?)`, s.Owner,
		string(s.credentials()))
	return errors.Join(err, os.Chmod(file, 0o600))
}
