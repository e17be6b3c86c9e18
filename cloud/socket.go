package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	giggleapi "giggle/api/giggle"
	"giggle/edge"
	"giggle/fault"
	"giggle/iam"
	"giggle/peer"
	"giggle/shell"
)

// Status is what `giggle status` shows.
type Status struct {
	PID       int            `json:"pid"`
	Version   string         `json:"version"`
	Data      string         `json:"data"`
	Project   string         `json:"project"`
	Address   string         `json:"address"`
	Ports     shell.Ports    `json:"ports"`
	Edge      string         `json:"edge"`
	Console   string         `json:"console"`
	Runtime   string         `json:"runtime"` // the OCI runtime and its version
	Services  int            `json:"services"`
	Instances map[string]int `json:"instances"` // ready, starting, prepared
	Memory    Memory         `json:"memory"`
	GPUs      []GPU          `json:"gpus,omitempty"`

	Goroutines int `json:"goroutines"` // of the platform's own process
}

// GPU is one of the machine's GPUs.
type GPU struct {
	UUID  string   `json:"uuid"`
	Model string   `json:"model"`
	Types []string `json:"types"`          // of Cloud Run, that services get it as
	Used  string   `json:"used,omitempty"` // the revision with the instance that has it
}

// Memory is what the platform's own process uses, in bytes.
type Memory struct {
	Heap uint64 `json:"heap"`
}

// peerKey is the context key of the uid on the other end of the socket.
type peerKey struct{}

// socketServer serves the platform's own door in its data directory: it knows the caller by the kernel's word.
func (c *Cloud) socketServer() *http.Server {
	m := http.NewServeMux()
	m.HandleFunc("GET /status", c.serveStatus)
	m.HandleFunc("POST /session", c.serveSession)
	(&giggleapi.Server{
		Models: c.models, AddModel: c.models.Add,
		Identity: c.identity, Audit: c.audit, Log: c.entries, Loads: c.loads, Projects: c.projectIDs, Caller: c.localUser, OpenShell: c.openShell,
	}).Register(m)
	return &http.Server{
		Handler: m, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			uid, err := peer.User(conn)
			if err != nil {
				uid = -1
			}
			return context.WithValue(ctx, peerKey{}, uid)
		},
	}
}

// Status returns the platform's state.
func (c *Cloud) Status(ctx context.Context) (Status, error) {
	n := 0
	for _, p := range c.projects.List() {
		svcs, err := c.services.Count(ctx, p.ID)
		if err != nil {
			return Status{}, err
		}
		n += svcs
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	ready, starting, prepared := c.scaler.Instances()
	var gpus []GPU
	for _, g := range c.scaler.GPUs() {
		gpus = append(gpus, GPU{g.ID, g.Model, g.Kinds, g.Holder.ID})
	}
	return Status{
		GPUs: gpus,
		PID:  os.Getpid(), Version: c.cfg.Version, Data: c.cfg.Data, Project: c.cfg.Project, Address: c.cfg.Address, Ports: c.ports(),
		Edge: c.plain.Addr().String(), Console: c.console.Addr().String(), Runtime: c.engine.Runtime(), Services: n,
		Instances: map[string]int{"ready": ready, "starting": starting, "prepared": prepared}, Memory: Memory{mem.HeapAlloc}, Goroutines: runtime.NumGoroutine(),
	}, nil
}

func (c *Cloud) ports() shell.Ports {
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	return shell.Ports{HTTPS: port(c.https), HTTP: port(c.http), DNS: port(c.dnsTCP)}
}

func (c *Cloud) serveStatus(w http.ResponseWriter, r *http.Request) {
	if _, err := c.localUser(r); err != nil {
		answer(w, nil, err)
		return
	}
	st, err := c.Status(r.Context())
	answer(w, st, err)
}

// serveSession signs a local user in. Root and the user who started the platform are its owner; nobody else is
// anybody yet.
func (c *Cloud) serveSession(w http.ResponseWriter, r *http.Request) {
	uid, ok := r.Context().Value(peerKey{}).(int)
	if !ok {
		uid = -1 // nobody, and not root
	}
	s, err := c.Session(uid)
	answer(w, s, err)
}

// isOwner reports whether a local user is the platform's owner.
func (c *Cloud) isOwner(uid int) bool { return uid == 0 || slices.Contains(c.cfg.OwnerUIDs, uid) }

// userOf is the principal of a local user. It fails with PermissionDenied for one who is nobody here.
func (c *Cloud) userOf(uid int) (iam.Principal, error) {
	if !c.isOwner(uid) {
		return iam.Anonymous, fault.New(fault.PermissionDenied,
			"The local user %d is not the owner of this platform: it was started by another user. Root, and the user who ran `sudo giggle up`, are.", uid)
	}
	return c.identity.Owner(), nil
}

// localUser is who calls through the socket.
func (c *Cloud) localUser(r *http.Request) (iam.Principal, error) {
	uid, ok := r.Context().Value(peerKey{}).(int)
	if !ok {
		uid = -1
	}
	return c.userOf(uid)
}

func (c *Cloud) projectIDs() []string {
	var out []string
	for _, p := range c.projects.List() {
		out = append(out, p.ID)
	}
	return out
}

// shellRegion is where shells are, as far as their metadata server says: the tutorial's region.
const shellRegion = "europe-north1"

// Session signs a local user in, by uid. It fails with PermissionDenied for one who is nobody here.
func (c *Cloud) Session(uid int) (shell.Session, error) {
	owner, err := c.userOf(uid)
	if err != nil {
		return shell.Session{}, err
	}
	dir := c.path("shell", strconv.Itoa(uid))
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return shell.Session{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return shell.Session{}, err
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		return shell.Session{}, err
	}
	// The same token as before, while it is good: gcloud keeps access tokens between shells, and to revoke the one must
	// revoke the others.
	token := shell.SavedToken(dir)
	if t, err := c.identity.CheckRefreshToken(token); err != nil || t.Principal() != owner {
		if token, err = c.identity.RefreshToken(owner, shell.Scopes()); err != nil {
			return shell.Session{}, err
		}
	}
	project, err := c.projects.Find(c.cfg.Project)
	if err != nil {
		return shell.Session{}, err
	}
	return shell.Session{
		Project: project.ID, ProjectNumber: project.Number, Region: shellRegion, Owner: owner.Email(), Address: c.cfg.Address, Ports: c.ports(), Proxy: c.plain.Addr().String(),
		RefreshToken: token, CA: string(c.ca.CertPEM()), Bundle: string(c.trust), Dir: dir,
	}, nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		f := fault.From(err)
		http.Error(w, f.Message, f.Code.HTTPStatus())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// serveConsole answers on the console's address. The console itself comes later; until then it says what runs and how
// to use it, and nothing else.
func (c *Cloud) serveConsole(w http.ResponseWriter, r *http.Request) {
	// A page of somebody's, whose name leads here by their DNS, is to read nothing.
	if host := edge.CleanHost(r.Host); !loopback(host) && edge.ParseName(host).Class != edge.Console {
		http.Error(w, "The console does not go by this name.", http.StatusMisdirectedRequest)
		return
	}
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "Giggle %s, project %s.\n\nThe web console is not implemented yet. Use the platform with:\n\n  giggle shell\n", c.cfg.Version, c.cfg.Project)
}
