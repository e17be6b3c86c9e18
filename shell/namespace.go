package shell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// InsideCommand is the hidden command of the giggle binary that runs inside the namespace: its arguments are the
// session's directory and the command.
const InsideCommand = "shell-inside"

// Run runs a command in a shell's namespace with the terminal of the caller, and returns its exit status. Self is the
// giggle binary. It fails with FailedPrecondition where namespaces are not allowed.
func (s *Session) Run(self string, env, command []string) (int, error) {
	cmd := exec.Command(self, append([]string{InsideCommand, s.Dir}, command...)...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGHUP}
	if os.Geteuid() != 0 {
		// As themselves, not as root: the same ids inside, and one capability, for the mounts, that is given up after.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	// The terminal sends these to the command too; it decides what they mean.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, unavailable(err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == syscall.SIGTERM || sig == syscall.SIGHUP {
					_ = cmd.Process.Signal(sig)
				}
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return 128 + int(st.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// trusted are the bundles that are replaced inside, where they exist.
var trusted = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
}

// Inside makes the namespace that it was started in into a shell's, and becomes the command. It returns only when
// that fails.
func Inside(dir string, command, env []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return unavailable(err)
	}
	over := func(file, target string) error {
		real, err := filepath.EvalSymlinks(target)
		if err != nil {
			return err
		}
		return unix.Mount(filepath.Join(dir, file), real, "", unix.MS_BIND, "")
	}
	if err := over(resolvFile, "/etc/resolv.conf"); err != nil {
		return unavailable(fmt.Errorf("/etc/resolv.conf: %w", err))
	}
	if err := over(nsswitchFile, "/etc/nsswitch.conf"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return unavailable(fmt.Errorf("/etc/nsswitch.conf: %w", err))
	}
	for _, path := range trusted {
		if err := over(bundleFile, path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return unavailable(fmt.Errorf("%s: %w", path, err))
		}
	}
	// A name cache answers with what it has learned outside: hide it.
	for _, cache := range []string{"/run/nscd", "/var/run/nscd", "/run/systemd/resolve"} {
		if st, err := os.Stat(cache); err == nil && st.IsDir() && !holds(cache, "/etc/resolv.conf") {
			if err := unix.Mount("none", cache, "tmpfs", 0, "size=4k,mode=755"); err != nil {
				return unavailable(fmt.Errorf("%s: %w", cache, err))
			}
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return unavailable(err)
	}
	path, err := lookPath(command[0], env)
	if err != nil {
		return err
	}
	return syscall.Exec(path, command, env)
}

// holds reports whether a file lies in a directory, its links followed.
func holds(dir, file string) bool {
	real, err := filepath.EvalSymlinks(file)
	return err == nil && filepath.Dir(real) == dir
}

// lookPath finds a command by the PATH of its environment.
func lookPath(name string, env []string) (string, error) {
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			if err := os.Setenv("PATH", kv[5:]); err != nil {
				return "", err
			}
		}
	}
	return exec.LookPath(name)
}
