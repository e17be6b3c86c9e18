package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"giggle/artifacts/mirror"
	"giggle/fault"
)

func (p *program) images() *cobra.Command {
	c := &cobra.Command{
		Use:   "images",
		Short: "The local mirror of foreign images",
		Long: "Images shows and changes the mirror of foreign images: what \"ubuntu\", \"golang:1.22\" or \"gcr.io/distroless/static\"\n" +
			"are in Dockerfiles, build steps and services. All platforms of the machine share it.",
		Example: "  giggle images ls\n  sudo giggle images pull golang:1.22\n  sudo giggle images add alpine:3.20 alpine.tar",
	}
	c.AddCommand(p.imagesList(), p.imagesAdd(), p.imagesPull(), p.imagesRemove(), p.imagesExport(), p.imagesCollect(),
		p.imagesLogin(), p.imagesLogout())
	return c
}

// mirrorFlag adds --mirror, and returns what opens it.
func (p *program) mirrorFlag(c *cobra.Command) func() (*mirror.Mirror, error) {
	def := p.getenv("GIGGLE_MIRROR")
	if def == "" {
		def = defaultMirror
	}
	dir := c.Flags().String("mirror", def, "directory of the mirror (GIGGLE_MIRROR)")
	return func() (*mirror.Mirror, error) {
		m, err := mirror.Open(*dir)
		if os.IsPermission(err) {
			return nil, fault.New(fault.PermissionDenied, "The mirror in %s can't be opened; it is root's: use sudo.",
				*dir)
		}
		return m, err
	}
}

func (p *program) imagesList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images",
		Args:    cobra.NoArgs,
		Example: "  giggle images ls\n  giggle images ls --json | jq -r '.[].Name'",
	}
	open := p.mirrorFlag(c)
	c.RunE = func(*cobra.Command, []string) error {
		m, err := open()
		if err != nil {
			return err
		}
		all, err := m.All()
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(all)
		}
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tKIND\tDIGEST\tSIZE\tADDED\tORIGIN")
		for _, e := range all {
			fmt.Fprintf(w, "%s\t%s\t%.19s\t%d MB\t%s\t%s\n", e.Name, e.Kind, e.Digest, (e.Size+1<<19)>>20,
				e.Added.Local().Format("2006-01-02 15:04"), e.Origin)
		}
		return w.Flush()
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) imagesAdd() *cobra.Command {
	var rootfs bool
	c := &cobra.Command{
		Use:   "add NAME PATH",
		Short: "Add an image from an OCI layout, an archive of docker save or podman save, or a root file system",
		Example: "  sudo giggle images add ubuntu:24.04 ubuntu.tar\n  sudo giggle images add me/base:1 ./layout\n" +
			"  sudo giggle images add --rootfs alpine:3.20 alpine-minirootfs-3.20.0-x86_64.tar",
		Args: cobra.ExactArgs(2),
	}
	open := p.mirrorFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := mirror.Familiar(args[0])
		if err != nil {
			return err
		}
		m, err := open()
		if err != nil {
			return err
		}
		if rootfs {
			err = addRoot(cmd.Context(), m, name, args[1])
		} else {
			var s mirror.Source
			if s, err = mirror.FromPath(args[1]); err == nil {
				err = m.Add(cmd.Context(), name, s, time.Now())
			}
		}
		return p.added(m, name, err)
	}
	c.Flags().BoolVar(&rootfs, "rootfs", false,
		"PATH is a root file system: a directory, or a tar archive that is not compressed")
	return c
}

// added says what is there now.
func (p *program) added(m *mirror.Mirror, name string, err error) error {
	if err != nil {
		return err
	}
	img, err := m.Get(name)
	if err == nil {
		p.printf("Added %s (%s, %d MB).\n", name, img.Digest, (img.Size+1<<19)>>20)
	}
	return err
}

// addRoot adds a root file system, from a tar archive or a directory.
func addRoot(ctx context.Context, m *mirror.Mirror, name, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fault.New(fault.NotFound, "%s can't be read: %v.", path, err)
	}
	if !info.IsDir() {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it is only read
		return m.AddRoot(ctx, name, f, time.Now())
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeRoot(w, path)) }()
	err = m.AddRoot(ctx, name, r, time.Now())
	_ = r.CloseWithError(io.ErrClosedPipe) // lets the writer go when the mirror gave up early
	return err
}

// writeRoot writes the files of a directory as a tar stream, owned by root.
func writeRoot(w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		case !info.Mode().IsRegular() && !info.IsDir():
			return nil
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it is only read
		_, err = io.Copy(out, f)
		return err
	})
	if err != nil {
		return err
	}
	return out.Close()
}

func (p *program) imagesPull() *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:     "pull NAME",
		Short:   "Fetch an image from its registry, where there is a network",
		Example: "  sudo giggle images pull golang:1.22-bookworm\n  sudo giggle images pull ubuntu --from registry.example.com/mirror/ubuntu:24.04",
		Args:    cobra.ExactArgs(1),
	}
	open := p.pullerFlags(c)
	c.Flags().StringVar(&from, "from", "", "pull this instead, and call it NAME")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := mirror.Familiar(args[0])
		if err != nil {
			return err
		}
		m, puller, err := open()
		if err != nil {
			return err
		}
		if from == "" {
			from = args[0]
		}
		err = puller.Fetch(cmd.Context(), from, name, func(line string) { p.printf("%s\n", line) })
		return p.added(m, name, err)
	}
	return c
}

func (p *program) imagesRemove() *cobra.Command {
	c := &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Take names out of the mirror",
		Args:    cobra.MinimumNArgs(1),
		Example: "  sudo giggle images rm alpine:3.20",
	}
	open := p.mirrorFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := open()
		if err != nil {
			return err
		}
		for _, a := range args {
			name, err := mirror.Familiar(a)
			if err != nil {
				return err
			}
			// What was pulled lies before what was made here in its place.
			err = m.Forget(cmd.Context(), name, time.Now())
			if err == nil {
				p.printf("Removed %s from the cache.\n", name)
				continue
			}
			if fault.Is(err, fault.NotFound) {
				err = m.Remove(name)
			}
			if err != nil {
				return err
			}
			p.printf("Removed %s.\n", name)
		}
		return nil
	}
	return c
}

func (p *program) imagesExport() *cobra.Command {
	c := &cobra.Command{
		Use:     "export NAME FILE",
		Short:   "Write an image as an archive that docker load and podman load read; - is standard output",
		Example: "  giggle images export ubuntu ubuntu.tar\n  giggle images export golang:1.22 - | podman load",
		Args:    cobra.ExactArgs(2),
	}
	open := p.mirrorFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := mirror.Familiar(args[0])
		if err != nil {
			return err
		}
		m, err := open()
		if err != nil {
			return err
		}
		if args[1] == "-" {
			return m.Export(cmd.Context(), name, p.stdout)
		}
		f, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if err := m.Export(cmd.Context(), name, f); err != nil {
			_ = f.Close()
			_ = os.Remove(args[1])
			return err
		}
		return f.Close()
	}
	return c
}
