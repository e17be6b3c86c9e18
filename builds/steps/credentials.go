package steps

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"syscall"
	"time"
)

// Where Docker's clients look for credentials below a step's home, and what is in that file.
const configFile = ".docker/config.json"

type dockerConfig struct {
	Auths map[string]dockerAuth `json:"auths"`
}

type dockerAuth struct {
	Auth string `json:"auth"`
}

// credentialsAge is how old credentials become before they are made anew: half of what they are good for.
const credentialsAge = 30 * time.Minute

// maxConfig bounds what is read of a configuration that steps may have written to, in bytes.
const maxConfig = 1 << 20

// giveCredentials writes credentials of the build's account for the platform's registries where every client of Docker
// finds them, as Cloud Build does (build.SetDockerAccessToken of cloud-build-local). A second call puts new ones in
// their place and leaves alone what steps have written beside them.
func (w *workspace) giveCredentials(ctx context.Context) (err error) {
	if w.cfg.Token == nil {
		return nil
	}
	token, err := w.cfg.Token(ctx, w.build)
	if err != nil {
		return err
	}
	auth := base64.StdEncoding.EncodeToString([]byte("oauth2accesstoken:" + token))
	root, err := os.OpenRoot(w.path("home"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if w.auth == "" {
		config := dockerConfig{Auths: make(map[string]dockerAuth)}
		for _, host := range w.cfg.Hosts {
			config.Auths["https://"+host] = dockerAuth{auth}
		}
		text, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			return err
		}
		if err := root.Mkdir(path.Dir(configFile), 0o777); err != nil {
			return err
		}
		if err := root.Chmod(path.Dir(configFile), 0o777); err != nil { // past the umask: a step may run as any user
			return err
		}
		w.auth = auth
		return errors.Join(root.WriteFile(configFile, text, 0o666), root.Chmod(configFile, 0o666))
	}
	f, err := root.OpenFile(configFile, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil // a step wants none, or others
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxConfig {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil || !bytes.Contains(text, []byte(w.auth)) {
		return err
	}
	text = bytes.ReplaceAll(text, []byte(w.auth), []byte(auth))
	w.auth = auth
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// keepCredentials makes the credentials of the build's account anew in time, until ctx ends.
func (w *workspace) keepCredentials(ctx context.Context) error {
	again := time.NewTicker(credentialsAge)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			if err := w.giveCredentials(ctx); err != nil {
				w.cfg.Log.Warn("new credentials of a build", "build", w.build.Name, "err", err)
			}
		}
	}
}
