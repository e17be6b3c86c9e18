package mirror

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"giggle/fault"
)

// Registry is what this machine's administrator says of a registry.
type Registry struct {
	Host     string   `json:"host"`
	Mirrors  []string `json:"mirrors,omitempty"`  // HOST[/PREFIX], asked first, in this order
	Insecure bool     `json:"insecure,omitempty"` // plain HTTP
	CA       string   `json:"ca,omitempty"`       // file of certificates, PEM
}

// dockerHub is the name by which the registry of names without a host is asked.
const dockerHub = name.DefaultRegistry

// canonical is the one name of a registry's host. It fails with InvalidArgument.
func canonical(host string) (string, error) {
	switch host {
	case "docker.io", "registry-1.docker.io", "https://index.docker.io/v1/":
		return dockerHub, nil
	}
	r, err := name.NewRegistry(host, name.StrictValidation)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return "", fault.New(fault.InvalidArgument, "%.200q is not the host of a registry, such as ghcr.io or localhost:5000.",
			host)
	}
	return strings.ToLower(r.RegistryStr()), nil
}

// ReadRegistries reads a list of registries: {"registries": [{"host": …, "mirrors": […], "insecure": …, "ca": …}]}. It
// fails with InvalidArgument.
func ReadRegistries(file string) ([]Registry, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "The list of registries can't be read: %v.", err)
	}
	var list struct {
		Registries []Registry `json:"registries"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fault.New(fault.InvalidArgument,
			`%s is no list of registries, {"registries": [{"host": "docker.io", "mirrors": ["mirror.example.com"]}]}: %v.`,
			file, err)
	}
	for i := range list.Registries {
		r := &list.Registries[i]
		if r.Host, err = canonical(r.Host); err != nil {
			return nil, err
		}
		for j, m := range r.Mirrors {
			host, prefix, _ := strings.Cut(strings.TrimSuffix(m, "/"), "/")
			if host, err = canonical(host); err != nil {
				return nil, err
			}
			r.Mirrors[j] = strings.TrimSuffix(host+"/"+prefix, "/")
		}
		if r.CA != "" && !filepath.IsAbs(r.CA) {
			r.CA = filepath.Join(filepath.Dir(file), r.CA)
		}
	}
	return list.Registries, nil
}

// endpoints are where the images of a registry are asked for, mirrors first.
func endpoints(host string, all []Registry, logins map[string]authn.AuthConfig, inside bool) []endpoint {
	one := func(host, prefix string, named bool) endpoint {
		e := endpoint{host: host, prefix: prefix, auth: logins[host]}
		i := slices.IndexFunc(all, func(r Registry) bool { return r.Host == host })
		if i >= 0 {
			e.insecure, e.ca = all[i].Insecure, all[i].CA
		}
		e.inside = inside || named || i >= 0 || e.auth != (authn.AuthConfig{})
		return e
	}
	var out []endpoint
	for _, r := range all {
		if r.Host != host {
			continue
		}
		for _, m := range r.Mirrors {
			at, prefix, _ := strings.Cut(m, "/")
			out = append(out, one(at, prefix, true))
		}
	}
	return append(out, one(host, "", false))
}

// The file of credentials has the form of Docker's, and is root's alone.
type credentials struct {
	Auths map[string]credential `json:"auths"`
}

type credential struct {
	Auth          string `json:"auth,omitempty"` // base64 of USER:PASSWORD
	IdentityToken string `json:"identitytoken,omitempty"`
}

// tokenUser is what stands for a user's name where a token is all there is, as docker writes it.
const tokenUser = "<token>"

func newCredential(user, password string) credential {
	if user == tokenUser {
		return credential{IdentityToken: password}
	}
	return credential{Auth: base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
}

func (c credential) config() (authn.AuthConfig, error) {
	b, err := base64.StdEncoding.DecodeString(c.Auth)
	user, password, ok := strings.Cut(string(b), ":")
	if err != nil || c.Auth != "" && !ok {
		return authn.AuthConfig{}, fault.New(fault.DataLoss, "The credentials of a registry can't be read.")
	}
	if c.IdentityToken != "" {
		return authn.AuthConfig{IdentityToken: c.IdentityToken}, nil
	}
	return authn.AuthConfig{Username: user, Password: strings.TrimRight(password, "\x00")}, nil
}

func (m *Mirror) credentialsFile() string { return filepath.Join(m.dir, "credentials.json") }

// logins reads the credentials of this machine. A process that may not read them asks without any.
func (m *Mirror) logins() (map[string]authn.AuthConfig, error) {
	stored, err := m.readCredentials()
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string]authn.AuthConfig, len(stored.Auths))
	for host, c := range stored.Auths {
		if out[host], err = c.config(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Mirror) readCredentials() (c credentials, err error) {
	c.Auths = map[string]credential{}
	b, err := os.ReadFile(m.credentialsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if json.Unmarshal(b, &c) != nil { // what it is must not be said
		return c, fault.New(fault.DataLoss, "The credentials in %s are damaged. Remove the file and log in again.",
			m.credentialsFile())
	}
	return c, nil
}

// changeCredentials replaces the file, which nobody but root may read at any moment.
func (m *Mirror) changeCredentials(change func(credentials) error) error {
	return m.locked(func() error {
		c, err := m.readCredentials()
		if err != nil {
			return err
		}
		if c.Auths == nil {
			c.Auths = map[string]credential{}
		}
		if err := change(c); err != nil {
			return err
		}
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return replaceFile(m.credentialsFile(), b, 0o600)
	})
}

// replaceFile writes a file that a reader sees as it was or as it is.
func replaceFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

// FromDocker reads the credentials of a registry out of a file of docker's or podman's. It fails with NotFound, and
// with FailedPrecondition where a program has them.
func FromDocker(file, host string) (user, password string, err error) {
	host, err = canonical(host)
	if err != nil {
		return "", "", err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", fault.New(fault.NotFound, "The credentials can't be read: %v.", err)
	}
	var c struct {
		credentials
		Store   string            `json:"credsStore"`
		Helpers map[string]string `json:"credHelpers"`
	}
	if json.Unmarshal(b, &c) != nil {
		return "", "", fault.New(fault.InvalidArgument, "%s is no file of credentials of docker's or podman's.", file)
	}
	for key, one := range c.Auths {
		at, err := canonical(strings.TrimSuffix(strings.TrimPrefix(key, "https://"), "/"))
		if key == "https://index.docker.io/v1/" {
			at, err = dockerHub, nil
		}
		if err != nil || at != host || one == (credential{}) {
			continue
		}
		a, err := one.config()
		if err == nil && a.IdentityToken != "" {
			return tokenUser, a.IdentityToken, nil
		}
		return a.Username, a.Password, err
	}
	if c.Store != "" || c.Helpers[host] != "" {
		return "", "", fault.New(fault.FailedPrecondition,
			"%s says that a program keeps the credentials of %s, which is not asked. Use --username and --password-stdin.",
			file, host)
	}
	return "", "", fault.New(fault.NotFound, "%s has no credentials of %s.", file, host)
}
