package giggle

import (
	"net/http"

	"giggle/iam"
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
	Instances map[string]int `json:"instances"` // ready, starting, prepared, ending
	Memory    Memory         `json:"memory"`
	GPUs      []GPU          `json:"gpus,omitempty"`
	SentBytes uint64         `json:"sentBytes"`           // of all containers, to the outside
	Online    bool           `json:"online"`              // containers reach the outside
	Egress    string         `json:"egress,omitempty"`    // by which means: "kernel" or "userspace"
	HostPorts []string       `json:"hostPorts,omitempty"` // of this machine that containers reach, as --host-port has them

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

// status answers with the platform's state.
func (s *Server) status(_ http.ResponseWriter, r *http.Request, _ iam.Principal) (any, error) {
	return s.cfg.Status(r.Context())
}

// session signs the caller in.
func (s *Server) session(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	return s.cfg.Session(r.Context(), localUser(r.Context()), who)
}
