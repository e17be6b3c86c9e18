package engine

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"giggle/engine/egress"
	"giggle/engine/lan"
	"giggle/fault"
)

// Spec says what to run and within which limits.
type Spec struct {
	ID     string   // the caller's name for the instance, free again once it is done
	Layers []string // unpacked layers, bottom first: oci.Image.Layers
	Args   []string // the command; a name without a slash is looked up in PATH
	Env    []string // "KEY=value"; PATH and HOME are added where they are missing
	Dir    string   // working directory, made if it is missing; "" is /
	User   string   // as in an image: "", "1000", "1000:1000", "name", "name:group"

	Memory int64   // bytes; 0 sets no limit
	CPU    int64   // millicores; 0 sets no limit
	Pids   int64   // processes and threads; 0 means 4096
	Groups []Group // that share limits, each in the one before
	Disk   bool    // what the process writes goes to the disk; else to memory, and counts as such, as on Cloud Run

	// that the process may use; a CDI spec of the machine must describe each. Who has which is the caller's business
	GPUs []GPU

	Keep     bool // what the process has written stays after its end, until Discard
	Mounts   []Mount
	Files    []File
	Hostname string // "" is localhost, as on Cloud Run

	// Output hears of each line that the process writes, one at a time and in order. It may be slow: lines are then
	// dropped and counted, and the process never waits. Nil throws the output away.
	Output  func(Line)
	Sockets Sockets
	// Networks are what the instance is on beside its way to the outside. What it asks Sockets.DNS for is answered with
	// the addresses of their members first.
	Networks []lan.Member

	// Terminal, when not nil, is the process's standard input, output and error: its end of a NewTerminal. Output hears
	// nothing then. Without one, standard input ends at once.
	Terminal *os.File
}

// Group is instances that may use so much together, beside what each may. It is made when the first one names it.
type Group struct {
	Name   string // letters, digits and dashes
	Memory int64  // bytes; 0 sets no limit
	Pids   int64  // processes and threads; 0 sets no limit
}

var groupName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

// Mount shows a directory or file of the host in the instance. Its files keep their owners: what the host's root owns
// belongs to the container's root, and the other way round. So what a container has left in a writable one is to be
// read with care on the host: it may hold links to anywhere, and set-user-id files of root.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// File is a file laid over the image, such as a resolv.conf. It is there also when the image has none. It belongs to
// the container's root, who may change, move and remove it as any other: start scripts of public images do. What one
// instance does to it no other one sees.
type File struct {
	Path string
	Data []byte
	Mode fs.FileMode // permissions; 0 means 0644
}

func (f File) mode() fs.FileMode {
	if f.Mode == 0 {
		return 0o644
	}
	return f.Mode.Perm()
}

// Sockets are the platform's listeners on 169.254.169.254 inside the instance. Each function is called once, in a
// goroutine of its own, with a listener that nobody but this instance can reach, and returns when the listener is
// closed. A nil one is not there: the instance's connections are refused.
type Sockets struct {
	Metadata func(net.Listener)                 // :80
	Edge     func(net.Listener)                 // :443
	DNS      func(net.PacketConn, net.Listener) // :53, UDP and TCP
	// Outside gives the instance a way to the outside, if the engine has one, and hears of packets that went nowhere.
	// It must not block. Nil is none.
	Outside func(egress.Drop)

	// Databases is port 3307 of all addresses in netns.Databases: a connection's local address says which one.
	Databases func(net.Listener)
	// Host are TCP ports of another address, 169.254.169.253, that lead to what the machine itself serves. Whoever
	// serves one opens a connection of its own for each. Without any the address isn't there.
	Host map[uint16]func(net.Listener)
}

// Saying returns the sockets with their way to the outside, if they have one, saying what was dropped.
func (s Sockets) Saying(say func(text string), now func() time.Time) Sockets {
	if s.Outside != nil {
		s.Outside = egress.Say(say, now)
	}
	return s
}

// Line is one line of an instance's output, without its end.
type Line struct {
	Time   time.Time
	Stream string // "stdout", "stderr"; "giggle" for a note that lines were dropped
	Text   string
}

// DefaultPath is the PATH of a process whose image and spec name none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// validate checks what can be checked without looking at the disk.
func (s *Spec) validate() error {
	switch {
	case s.ID == "":
		return fault.Invalid("id", "is empty.")
	case len(s.Layers) == 0:
		return fault.Invalid("layers", "an instance needs at least one.")
	case len(s.Layers) > 400: // overlay takes 500
		return fault.Invalid("layers", "%d are too many; 400 are the most.", len(s.Layers))
	case len(s.Args) == 0 || s.Args[0] == "":
		return fault.Invalid("args", "the image has no command, and none was given.")
	case s.Memory < 0 || s.CPU < 0 || s.Pids < 0:
		return fault.Invalid("resources", "a limit is negative.")
	case s.Memory > 0 && s.Memory < minMemory:
		return fault.Invalid("memory", "%d bytes are too little; %d are the least.", s.Memory, minMemory)
	case s.CPU > 0 && s.CPU < minCPU:
		return fault.Invalid("cpu", "%d millicores are too little; %d are the least.", s.CPU, minCPU)
	case s.Dir != "" && !path.IsAbs(s.Dir):
		return fault.Invalid("dir", "%q is not absolute.", s.Dir)
	}
	for _, text := range append(append([]string{s.Dir, s.User, s.Hostname}, s.Args...), s.Env...) {
		if strings.ContainsRune(text, 0) {
			return fault.Invalid("args", "%q has a zero byte.", text)
		}
	}
	for i, e := range s.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return fault.Invalid(fmt.Sprintf("env[%d]", i), "is not KEY=value.") // no text: it may be a secret
		}
	}
	for i, g := range s.Groups {
		if !groupName.MatchString(g.Name) || g.Memory < 0 || g.Pids < 0 {
			return fault.Invalid(fmt.Sprintf("groups[%d]", i), "%.80q is no name of a group, or a limit is negative.",
				g.Name)
		}
	}
	for i, m := range s.Mounts {
		if !path.IsAbs(m.Source) || !cleanTarget(m.Target) {
			return fault.Invalid(fmt.Sprintf("mounts[%d]", i), "%q on %q: both must be clean absolute paths.", m.Source,
				m.Target)
		}
	}
	for i, f := range s.Files {
		if !cleanTarget(f.Path) {
			return fault.Invalid(fmt.Sprintf("files[%d]", i), "%q is not a clean absolute path.", f.Path)
		}
	}
	return nil
}

func cleanTarget(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && p != "/" && !strings.ContainsRune(p, 0)
}

// The least that works: below, the runtime itself is killed while it sets up.
const (
	minMemory = 16 << 20 // bytes
	minCPU    = 10       // millicores: the kernel's least quota is 1 ms of 100
)

// getenv returns the last value of key in env.
func getenv(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], key+"="); ok {
			return v, true
		}
	}
	return "", false
}
