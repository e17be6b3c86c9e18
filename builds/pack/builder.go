package pack

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"giggle/builds"
	"giggle/fault"
	"giggle/oci"
)

// platformAPIs are the versions of the Platform API that are spoken here, the best first. Writing to an OCI layout came
// with the last.
var platformAPIs = []string{"0.14", "0.13", "0.12"}

// builder is a builder image, as its labels and its environment describe it.
type builder struct {
	oci.Image
	name     string
	uid, gid int
	api      string
	runs     []string                              // run images, the first that can be had counts
	versions map[string]map[string]json.RawMessage // of the buildpacks, by id
}

// metadata is the label io.buildpacks.builder.metadata.
type metadata struct {
	Stack     struct{ RunImage runImage }
	Images    []runImage
	Lifecycle struct {
		APIs struct {
			Platform struct{ Deprecated, Supported []string }
		}
	}
}

type runImage struct {
	Image   string
	Mirrors []string
}

// absent is the fault of an image that can't be had, whatever the reason.
func absent(what, name string, err error) error {
	if f := fault.From(err); f.Code != fault.Internal {
		return fault.New(fault.NotFound, "%s %s is not to be had: %s", what, name, f.Message)
	}
	return err
}

// builder finds a builder image.
func (l *Lifecycle) builder(
	ctx context.Context, b builds.Build, name string, say func(string),
) (builder, error) {
	img, err := l.cfg.Images.Image(ctx, b, name, say)
	if err != nil {
		if ctx.Err() != nil {
			return builder{}, ctx.Err()
		}
		return builder{}, absent("the builder", name, err)
	}
	return describe(name, img)
}

// describe reads a builder's labels and environment.
func describe(name string, img oci.Image) (builder, error) {
	out := builder{Image: img, name: name}
	none := func(format string, args ...any) error {
		return fault.New(fault.FailedPrecondition, "%s can't be used as a builder: %s.", name, fmt.Sprintf(format, args...))
	}
	for _, v := range []struct {
		variable string
		id       *int
	}{{"CNB_USER_ID", &out.uid}, {"CNB_GROUP_ID", &out.gid}} {
		var text string
		for _, e := range img.Config.Env {
			if value, ok := strings.CutPrefix(e, v.variable+"="); ok {
				text = value
			}
		}
		id, err := strconv.ParseUint(text, 10, 16)
		if err != nil || id == 0 {
			return out, none("its %s is %.20q, not the id of a user other than root", v.variable, text)
		}
		*v.id = int(id)
	}
	var m metadata
	if err := label(img, "io.buildpacks.builder.metadata", &m); err != nil {
		return out, none("%v", err)
	}
	for _, r := range append(m.Images, m.Stack.RunImage) {
		for _, run := range append([]string{r.Image}, r.Mirrors...) {
			if run != "" && !slices.Contains(out.runs, run) {
				out.runs = append(out.runs, run)
			}
		}
	}
	known := append(m.Lifecycle.APIs.Platform.Supported, m.Lifecycle.APIs.Platform.Deprecated...)
	for _, api := range platformAPIs {
		if slices.Contains(known, api) {
			out.api = api
			break
		}
	}
	if out.api == "" {
		return out, none("its lifecycle speaks the Platform APIs %.100q, of which Giggle knows none (%s)", known,
			strings.Join(platformAPIs, ", "))
	}
	if err := label(img, "io.buildpacks.buildpack.layers", &out.versions); err != nil {
		return out, none("%v", err)
	}
	return out, nil
}

// label decodes a label, where there is one.
func label(img oci.Image, name string, into any) error {
	text := img.Config.Labels[name]
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("its label %s is not readable: %w", name, err)
	}
	return nil
}

// runImage finds the image that what is built is put on.
func (l *Lifecycle) runImage(
	ctx context.Context, b builds.Build, r Request, with builder, say func(string),
) (name string, m oci.Manifest, err error) {
	names := with.runs
	if r.RunImage != "" {
		names = []string{r.RunImage}
	}
	if len(names) == 0 {
		return "", m, fault.New(fault.FailedPrecondition, "The builder %s names no run image: give one, --run-image.",
			with.name)
	}
	var first error
	for _, name := range names {
		digest, err := l.cfg.Images.Pull(ctx, b, name, say)
		if err == nil {
			m, err := l.cfg.Manifests.Inspect(ctx, digest)
			return name, m, err
		}
		if ctx.Err() != nil {
			return "", m, ctx.Err()
		}
		if first == nil {
			first = absent("the run image", name, err)
		}
	}
	return "", m, first
}

// order is the order.toml for buildpacks that were asked for; "" for none.
func (b builder) order(buildpacks []string) (string, error) {
	if len(buildpacks) == 0 {
		return "", nil
	}
	var out strings.Builder
	out.WriteString("[[order]]\n")
	for _, bp := range buildpacks {
		id, version, _ := strings.Cut(strings.TrimPrefix(bp, "urn:cnb:builder:"), "@")
		versions := b.versions[id]
		if version == "" && len(versions) == 1 {
			for version = range versions {
			}
		}
		if _, ok := versions[version]; !ok {
			return "", refuse("the builder %s has no buildpack %.200q, or more than one of that id. Only a builder's own buildpacks can be chosen: ID@VERSION.",
				b.name, bp)
		}
		fmt.Fprintf(&out, "[[order.group]]\nid = %q\nversion = %q\n", id, version)
	}
	return out.String(), nil
}
