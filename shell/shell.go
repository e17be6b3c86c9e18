// Package shell is the Cloud Shell on one's own machine: a command in a private mount namespace where Google's names
// resolve to Giggle, its CA is trusted, and gcloud is signed in with a configuration of its own.
//
// It serves `giggle shell` and `giggle env`. Outside the namespace nothing changes. It asks the platform for what it
// needs through the socket in the data directory, as any client; it decides nothing about who may sign in.
package shell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"giggle/fault"
)

// Session is what the platform gives a signed-in user: everything that a shell is made of.
type Session struct {
	Project       string `json:"project"`
	ProjectNumber string `json:"projectNumber"`
	Region        string `json:"region"`  // that the metadata server names
	Owner         string `json:"account"` // e-mail address that gcloud is signed in as
	Address       string `json:"address"` // where names resolve to
	Ports         Ports  `json:"ports"`
	Proxy         string `json:"proxy"` // HOST:PORT of the CONNECT proxy
	RefreshToken  string `json:"refreshToken"`
	CA            string `json:"ca"`     // PEM certificate
	Bundle        string `json:"bundle"` // PEM: the system's certificates and the CA
	Dir           string `json:"dir"`    // directory of this user's own, kept between shells

	Metadata string `json:"-"` // HOST:PORT of the shell's metadata server, once it serves
}

// Ports of the address, as they were bound.
type Ports struct {
	HTTPS int `json:"https"`
	HTTP  int `json:"http"`
	DNS   int `json:"dns"`
}

// SocketName is the platform's socket in its data directory.
const SocketName = "giggle.sock"

// Dial returns an HTTP client for the platform on a data directory; the host in URLs does not matter.
func Dial(data string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(data, SocketName))
		},
	}}
}

// SignIn asks the platform on a data directory for a session of the calling user.
func SignIn(ctx context.Context, data string) (Session, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://giggle/session", nil)
	if err != nil {
		return Session{}, err
	}
	res, err := Dial(data).Do(req)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return Session{}, fault.New(fault.PermissionDenied,
				"You may not use the socket in %s. Was the platform started with --data of another user?", data)
		}
		return Session{}, fault.New(fault.Unavailable, "No platform runs on %s. Start one with `giggle up --data %s`.",
			data, data)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return Session{}, err
	}
	if res.StatusCode != http.StatusOK {
		var e struct {
			Message string `json:"message"`
		}
		if err := json.Unmarshal(body, &e); err != nil || e.Message == "" {
			e.Message = "The platform answers " + res.Status + "."
		}
		return Session{}, fault.New(fault.PermissionDenied, "%s", e.Message)
	}
	var s Session
	return s, json.Unmarshal(body, &s)
}

// names of the files in a session's directory.
const (
	caFile       = "ca.pem"
	bundleFile   = "bundle.pem"
	resolvFile   = "resolv.conf"
	nsswitchFile = "nsswitch.conf"
	adcFile      = "application_default_credentials.json"
	gcloudDir    = "gcloud"
	binDir       = "bin"
)

// Write makes the files of a session in its directory.
func (s *Session) Write(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "shell.Write")
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{caFile, []byte(s.CA), 0o644},
		{bundleFile, []byte(s.Bundle), 0o644},
		{resolvFile, []byte("nameserver " + s.Address + "\noptions timeout:5 attempts:1\n"), 0o644},
		{nsswitchFile, nsswitch(), 0o644},
		{adcFile, s.credentials(), 0o600},
	} {
		if err := writeFile(filepath.Join(s.Dir, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return s.writeGcloud(ctx)
}

// Link puts the programs that gcloud looks for, which are the giggle binary by other names, where PATH leads first.
func (s *Session) Link(self string) (err error) {
	defer fault.Wrap(&err, "shell.Link")
	dir := filepath.Join(s.Dir, binDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	link := filepath.Join(dir, RunProxyName)
	if have, err := os.Readlink(link); err == nil && have == self {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", link, os.Getpid()) // renamed: another shell may be using the old one
	if err := os.Symlink(self, tmp); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Rename(tmp, link)
}

// writeFile replaces a file, unless it has the content already: another shell may have it mounted.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after the rename
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Chmod(mode), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// nsswitch is the system's nsswitch.conf with host names looked up in files and DNS only: modules such as
// systemd-resolved would not ask our resolver.
func nsswitch() []byte {
	b, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		return []byte("hosts: files dns\n")
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "hosts:") {
			line = "hosts: files dns"
		}
		out = append(out, line)
	}
	return []byte(strings.Join(out, "\n"))
}

// What a shell shows beside its refresh token, which alone counts.
const (
	clientID     = "giggle-shell"
	clientSecret = "none"
)

// credentials is the authorized_user file that Google's libraries and gcloud read.
func (s *Session) credentials() []byte {
	b, err := json.MarshalIndent(map[string]any{
		"type":          "authorized_user",
		"client_id":     clientID,
		"client_secret": clientSecret,
		"refresh_token": s.RefreshToken,
		"scopes":        Scopes(), "token_uri": "https://oauth2.googleapis.com/token",
		"universe_domain":  "googleapis.com",
		"quota_project_id": s.Project,
	}, "", "  ")
	if err != nil {
		return nil // strings always encode
	}
	return b
}

// SavedToken is the refresh token that the last shell in a directory signed in with, "" for none.
func SavedToken(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, adcFile))
	if err != nil {
		return ""
	}
	var c struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(b, &c) != nil {
		return ""
	}
	return c.RefreshToken
}

// Scopes are those of a person who is signed in with gcloud.
func Scopes() []string {
	return []string{
		"openid", "https://www.googleapis.com/auth/userinfo.email", "https://www.googleapis.com/auth/cloud-platform",
		"https://www.googleapis.com/auth/appengine.admin", "https://www.googleapis.com/auth/sqlservice.login",
		"https://www.googleapis.com/auth/compute", "https://www.googleapis.com/auth/accounts.reauth",
	}
}

// Env returns the variables of a shell, over those of the caller.
func (s *Session) Env(environ []string) []string {
	bundle := filepath.Join(s.Dir, bundleFile)
	set := map[string]string{
		"CLOUDSDK_CONFIG":                                 filepath.Join(s.Dir, gcloudDir),
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE":              filepath.Join(s.Dir, caFile),
		"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING":           "true",
		"CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
		"CLOUDSDK_SURVEY_DISABLE_PROMPTS":                 "true",
		"GOOGLE_CLOUD_PROJECT":                            s.Project,
		"DEVSHELL_PROJECT_ID":                             s.Project,
		"GOOGLE_APPLICATION_CREDENTIALS":                  filepath.Join(s.Dir, adcFile),
		"GIGGLE_SHELL":                                    s.Project,
	}
	for _, name := range bundleVariables {
		set[name] = bundle
	}
	if !hasEnv(environ, "GIT_CONFIG_COUNT") { // git asks gcloud for its password, as in Cloud Shell
		set["GIT_CONFIG_COUNT"], set["GIT_CONFIG_KEY_0"] = "1", "credential.https://source.developers.google.com.helper"
		set["GIT_CONFIG_VALUE_0"] = "!gcloud auth git-helper --ignore-unknown $@"
	}
	if s.Metadata != "" { // not GCE_METADATA_ROOT: gcloud would take the shell for a virtual machine
		set["GCE_METADATA_HOST"], set["GCE_METADATA_IP"] = s.Metadata, s.Metadata
	}
	var out []string
	noProxy, path := ownNames, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "NO_PROXY" || name == "no_proxy":
			noProxy = value + "," + ownNames
		case name == "PATH":
			path = value
		case set[name] != "":
		case strings.HasPrefix(name, "CLOUDSDK_PROXY_") ||
			strings.HasPrefix(name, "CLOUDSDK_API_ENDPOINT_OVERRIDES_") || strings.HasPrefix(name, "CLOUDSDK_AUTH_"):
			// would lead gcloud past us
		case strings.HasPrefix(name, "GCE_METADATA_"): // of another shell
		default:
			out = append(out, kv)
		}
	}
	for name, value := range set {
		out = append(out, name+"="+value)
	}
	if !hasEnv(out, "PORT") {
		out = append(out, "PORT=8080") // Cloud Shell's web preview looks there
	}
	return append(out, "NO_PROXY="+noProxy, "no_proxy="+noProxy, "PATH="+filepath.Join(s.Dir, binDir)+":"+path)
}

func hasEnv(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}

// ownNames are the platform's names as NO_PROXY takes them.
const ownNames = ".googleapis.com,.run.app,.pkg.dev,gcr.io,.gcr.io,accounts.google.com,source.developers.google.com,console.cloud.google.com,metadata.google.internal,localhost,127.0.0.1"

// bundleVariables make programs that bring their own certificates trust ours too.
var bundleVariables = []string{
	"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	"HTTPLIB2_CA_CERTS", "GIT_SSL_CAINFO",
}

// Unavailable explains why a shell can't be made here, and the way out.
func unavailable(err error) error {
	e := fault.New(fault.FailedPrecondition,
		"This system does not allow a private mount namespace (%v). Use `eval \"$(giggle env)\"` for gcloud, or run `giggle shell` as root; "+
			"on Debian and Ubuntu, `sysctl kernel.unprivileged_userns_clone=1` or an AppArmor profile may forbid it.",
		err)
	e.Cause = err
	return fmt.Errorf("shell: %w", e)
}

// ProxyEnv returns the variables, in order, that lead gcloud alone to the platform through its proxy: no name has to
// resolve. All three proxy properties are needed together, and with them gcloud 528 ignores the proxy and certificate
// variables of the environment.
func (s *Session) ProxyEnv() [][2]string {
	host, port, err := net.SplitHostPort(s.Proxy)
	if err != nil {
		host, port = s.Proxy, ""
	}
	return [][2]string{
		{"CLOUDSDK_CONFIG", filepath.Join(s.Dir, gcloudDir)},
		{"CLOUDSDK_PROXY_TYPE", "http"},
		{"CLOUDSDK_PROXY_ADDRESS", host},
		{"CLOUDSDK_PROXY_PORT", port},
		{"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", filepath.Join(s.Dir, caFile)},
		{"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "true"},
		{"CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "true"},
		{"CLOUDSDK_SURVEY_DISABLE_PROMPTS", "true"},
		{"GOOGLE_CLOUD_PROJECT", s.Project},
	}
}
