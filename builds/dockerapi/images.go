package dockerapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/builds/dockerfile"
	"giggle/builds/source"
	"giggle/fault"
	"giggle/oci"
)

// image is an image of a build's store.
type image struct {
	id     string // digest of the configuration
	digest string // of the manifest
	names  []string
	made   time.Time
}

// maxImages bounds the store of one build.
const maxImages = 1000

// name is the one name of an image reference. It fails with InvalidArgument.
func (x *session) name(ref string) (string, error) {
	name, err := x.cfg.Familiar(ref)
	if err != nil {
		return "", fault.New(fault.InvalidArgument, "invalid reference format: %.200q", ref)
	}
	return name, nil
}

// add puts an image into the store, with names that it takes from others.
func (x *session) add(id, digest string, names ...string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var img *image
	for _, old := range x.images {
		old.names = slices.DeleteFunc(old.names, func(n string) bool { return slices.Contains(names, n) })
		if old.digest == digest {
			img = old
		}
	}
	if img == nil {
		if len(x.images) >= maxImages {
			return fault.New(fault.ResourceExhausted, "This build has %d images; remove some.", maxImages)
		}
		img = &image{id: id, digest: digest, made: x.cfg.Now()}
		x.images = append(x.images, img)
	}
	img.names = append(img.names, names...)
	return nil
}

// find finds an image by name, digest or id.
func (x *session) find(ref string) (image, error) {
	name, nameErr := x.name(ref)
	short := strings.TrimPrefix(ref, "sha256:")
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, img := range x.images {
		if nameErr == nil && slices.Contains(img.names, name) {
			return *img, nil
		}
		if _, digest, ok := strings.Cut(ref, "@"); ok && digest == img.digest {
			return *img, nil
		}
	}
	for _, img := range x.images {
		if len(short) >= 4 && strings.HasPrefix(strings.TrimPrefix(img.id, "sha256:"), short) {
			return *img, nil
		}
	}
	return image{}, fault.New(fault.NotFound, "No such image: %.200s", ref)
}

// inspect is a manifest of the store.
func (x *session) inspect(ctx context.Context, img image) (oci.Manifest, error) {
	return x.cfg.Images.Inspect(ctx, img.digest)
}

// buildImage is docker build: the context is the body.
func (x *session) buildImage(w http.ResponseWriter, r *http.Request) (err error) {
	q := r.URL.Query()
	if q.Get("remote") != "" {
		return fault.New(fault.Unimplemented,
			"A build context is a directory of the step; %.200q is somewhere else, and builds have no network.",
			q.Get("remote"))
	}
	if v := q.Get("version"); v != "" && v != "1" {
		return fault.New(fault.Unimplemented,
			"BuildKit's own protocol is not served: leave DOCKER_BUILDKIT away. Giggle builds with BuildKit anyway.")
	}
	var names []string
	for _, t := range q["t"] {
		name, err := x.name(t)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	req := dockerfile.Request{
		Build:      x.build,
		Dockerfile: q.Get("dockerfile"),
		Target:     q.Get("target"),
		Platform:   q.Get("platform"),
		NoCache:    q.Get("nocache") == "1",
	}
	for key, into := range map[string]any{"buildargs": &req.Args, "labels": &req.Labels} {
		if text := q.Get(key); text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return fault.New(fault.InvalidArgument, "%s can't be read: %v", key, err)
			}
		}
	}
	if err := buildOptions(q, &req); err != nil {
		return err
	}
	for header, into := range map[string]*map[string][]byte{SecretsHeader: &req.Secrets, KeysHeader: &req.Keys} {
		if *into, err = secrets(r.Header.Get(header)); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(x.dir+"/tmp", "context-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := x.receive(r.Context(), r.Body, dir); err != nil {
		return err
	}
	req.Context = dir
	out := newStream(w)
	quiet := q.Get("q") == "1"
	log := io.Writer(out)
	if quiet {
		log = io.Discard
	}
	if q.Get("cachefrom") != "" && q.Get("cachefrom") != "null" && q.Get("cachefrom") != "[]" {
		_, _ = io.WriteString(log, "--cache-from: the project's own cache of builds is used.\n")
	}
	img, err := x.cfg.Builder.Build(r.Context(), req, log)
	if err == nil {
		img.Digest, err = x.asDocker(r.Context(), img.Digest)
	}
	if err == nil {
		err = x.add(img.Config, img.Digest, names...)
	}
	if err != nil {
		out.fail(x.message(r, err))
		return nil
	}
	if quiet { // the CLI prints all that it gets
		_, _ = out.Write([]byte(img.Config + "\n"))
		return nil
	}
	out.send(map[string]any{"aux": map[string]string{"ID": img.Config}})
	id := strings.TrimPrefix(img.Config, "sha256:")
	_, _ = out.Write([]byte("Successfully built " + id[:min(12, len(id))] + "\n"))
	for _, name := range names {
		_, _ = out.Write([]byte("Successfully tagged " + name + "\n"))
	}
	return nil
}

// Docker's own builds take secrets by a protocol that is not served. Here they come in headers of the call, which the
// docker of build steps has its CLI send: ID=BASE64 of each, with commas between them.
const (
	SecretsHeader = "X-Giggle-Secrets"
	KeysHeader    = "X-Giggle-Keys"
)

// maxSecret is the most bytes of a secret, as BuildKit has it; maxHeaders of all of them as they are sent.
const (
	maxSecret  = 500 << 10
	maxHeaders = 4 << 20
)

var secretID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// secrets reads a header of secrets. No fault has any of what is in them.
func secrets(header string) (map[string][]byte, error) {
	if header == "" {
		return nil, nil
	}
	out := make(map[string][]byte)
	for one := range strings.SplitSeq(header, ",") {
		id, text, _ := strings.Cut(one, "=")
		if !secretID.MatchString(id) {
			return nil, fault.New(fault.InvalidArgument, "The id of a secret is of letters, digits, '_', '.' and '-'.")
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "The secret %s can't be read.", id)
		}
		if len(b) > maxSecret {
			return nil, fault.New(fault.InvalidArgument, "The secret %s is bigger than %d KiB.", id, maxSecret>>10)
		}
		out[id] = b
	}
	return out, nil
}

// buildOptions reads the options of docker build that RUN steps have, and refuses by name those that can't be had here
// (https://docs.docker.com/reference/api/engine/version/v1.44/#tag/Image/operation/ImageBuild).
func buildOptions(q url.Values, req *dockerfile.Request) error {
	for _, o := range []struct{ name, option string }{
		{"memory", "--memory"}, {"memswap", "--memory-swap"}, {"cpushares", "--cpu-shares"},
		{"cpusetcpus", "--cpuset-cpus"}, {"cpusetmems", "--cpuset-mems"}, {"cpuperiod", "--cpu-period"},
		{"cpuquota", "--cpu-quota"}, {"cgroupparent", "--cgroup-parent"}, {"isolation", "--isolation"},
		{"squash", "--squash"}, {"securityopt", "--security-opt"}, {"outputs", "--output"},
	} {
		if v := q.Get(o.name); !slices.Contains([]string{"", "0", "null", "[]", "default"}, v) {
			return fault.New(fault.Unimplemented, "docker build in a build step can't have %s.", o.option)
		}
	}
	switch mode := q.Get("networkmode"); mode {
	case "", "default", "bridge", "cloudbuild":
	case "none":
		req.Network = mode
	default:
		return fault.New(fault.Unimplemented,
			"docker build in a build step can't have --network=%.100s: RUN steps have the build's network, or none.", mode)
	}
	for _, h := range q["extrahosts"] {
		name, address, ok := strings.Cut(h, ":")
		if _, err := netip.ParseAddr(strings.Trim(address, "[]")); !ok || err != nil || strings.ContainsAny(name, ",=\"\n") {
			return fault.New(fault.InvalidArgument, "bad format for add-host: %.200q", h)
		}
		req.Hosts = append(req.Hosts, name+"="+strings.Trim(address, "[]"))
	}
	if v := q.Get("shmsize"); v != "" && v != "0" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return fault.New(fault.InvalidArgument, "invalid --shm-size: %.50q", v)
		}
		req.Shm = n
	}
	if v := q.Get("ulimits"); v != "" && v != "null" {
		var limits []struct {
			Name       string
			Hard, Soft int64
		}
		if err := json.Unmarshal([]byte(v), &limits); err != nil {
			return fault.New(fault.InvalidArgument, "ulimits can't be read: %v", err)
		}
		for _, l := range limits {
			if l.Name == "" || strings.Trim(l.Name, "abcdefghijklmnopqrstuvwxyz") != "" {
				return fault.New(fault.InvalidArgument, "invalid ulimit type: %.50q", l.Name)
			}
			req.Ulimits = append(req.Ulimits, fmt.Sprintf("%s=%d:%d", l.Name, l.Soft, l.Hard))
		}
	}
	return nil
}

// asDocker is an image with a manifest of Docker's own kind, as Docker makes and pushes them: docker manifest reads no
// others. Configuration and layers are the same.
func (x *session) asDocker(ctx context.Context, digest string) (string, error) {
	raw, err := x.read(ctx, digest)
	if err != nil {
		return "", err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", err
	}
	if m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON {
		return digest, nil
	}
	m.MediaType, m.Config.MediaType, m.Annotations = types.DockerManifestSchema2, types.DockerConfigJSON, nil
	for i := range m.Layers {
		l := &m.Layers[i]
		if l.MediaType != types.OCILayer {
			return digest, nil
		}
		l.MediaType, l.Annotations = types.DockerLayer, nil
	}
	if raw, err = json.MarshalIndent(m, "", "   "); err != nil {
		return "", err
	}
	made, err := x.cfg.Blobs.Put(ctx, bytes.NewReader(raw), "")
	return string(made.Digest), err
}

// message is what the user sees of an error; ours are logged.
func (x *session) message(r *http.Request, err error) string {
	f := fault.From(err)
	if f.Code == fault.Internal {
		x.cfg.Log.Error("docker in a build", "build", x.build.Name, "call", r.URL.Path, "err", err)
	}
	if f.Code == fault.PermissionDenied || f.Code == fault.Unauthenticated {
		return "denied: " + f.Message
	}
	return f.Message
}

// maxContext bounds a build context as it is sent, in bytes.
const maxContext = 4 << 30

// receive unpacks a build context.
func (x *session) receive(ctx context.Context, body io.Reader, dir string) (err error) {
	f, err := os.CreateTemp(x.dir+"/tmp", "tar-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	n, err := io.Copy(f, io.LimitReader(body, maxContext+1))
	if err != nil {
		return err
	}
	if n > maxContext {
		return fault.New(fault.InvalidArgument,
			"The build context is bigger than %d GiB. A .dockerignore file leaves out what the Dockerfile doesn't need.", maxContext>>30)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	// Links may lead anywhere: BuildKit follows none out of the directory.
	return x.cfg.Unpacker.Extract(ctx, f, n, dir, source.DefaultLimits)
}

// image serves the calls on one image, whose name may have slashes: /images/NAME/CALL.
func (x *session) image(w http.ResponseWriter, r *http.Request) error {
	rest := r.PathValue("rest")
	i := strings.LastIndexByte(rest, '/')
	name, verb := rest, ""
	if r.Method != http.MethodDelete {
		if i < 0 {
			return fault.New(fault.Unimplemented, "%s %.100s is not served.", r.Method, r.URL.Path)
		}
		name, verb = rest[:i], rest[i+1:]
	}
	switch r.Method + " " + verb {
	case "DELETE ":
		return x.removeImage(w, name)
	case "GET json":
		return x.inspectImage(w, r, name)
	case "POST tag":
		return x.tag(w, r, name)
	case "POST push":
		return x.push(w, r, name)
	case "GET get":
		return x.saveNames(w, r, []string{name})
	case "GET history":
		return x.history(w, r, name)
	}
	return fault.New(fault.Unimplemented, "%s %.100s is not served.", r.Method, r.URL.Path)
}

// history is docker history: the newest layer first. An image's id is that of the top one; those below have none.
func (x *session) history(w http.ResponseWriter, r *http.Request, ref string) error {
	img, err := x.find(ref)
	if err != nil {
		return err
	}
	m, err := x.inspect(r.Context(), img)
	if err != nil {
		return err
	}
	out, layer := []map[string]any{}, 0
	for _, h := range m.Config.History {
		size := int64(0)
		if !h.EmptyLayer && layer < len(m.Layers) {
			size = m.Layers[layer].Size
			layer++
		}
		out = append(out, map[string]any{"Id": "<missing>", "Created": h.Created.Unix(), "CreatedBy": h.CreatedBy,
			"Comment": h.Comment, "Size": size, "Tags": nil})
	}
	slices.Reverse(out)
	if len(out) > 0 {
		out[0]["Id"], out[0]["Tags"] = img.id, img.names
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (x *session) tag(w http.ResponseWriter, r *http.Request, ref string) error {
	img, err := x.find(ref)
	if err != nil {
		return err
	}
	to := r.URL.Query().Get("repo")
	if tag := r.URL.Query().Get("tag"); tag != "" {
		to += ":" + tag
	}
	name, err := x.name(to)
	if err != nil {
		return err
	}
	if err := x.add(img.id, img.digest, name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (x *session) push(w http.ResponseWriter, r *http.Request, ref string) error {
	tags := []string{r.URL.Query().Get("tag")}
	if tags[0] == "" { // all tags of the repository
		tags = x.tagsOf(ref)
		if len(tags) == 0 {
			return fault.New(fault.NotFound, "An image does not exist locally with the tag: %.200s", ref)
		}
	}
	out := newStream(w)
	out.status("The push refers to repository [" + ref + "]")
	for _, tag := range tags {
		img, err := x.find(ref + ":" + tag)
		if err != nil {
			out.fail("An image does not exist locally with the tag: " + ref)
			return nil
		}
		if err := x.cfg.Registry.Push(r.Context(), x.build, ref+":"+tag, img.digest); err != nil {
			out.fail(x.message(r, err))
			return nil
		}
		manifest, err := x.read(r.Context(), img.digest)
		if err != nil {
			out.fail(x.message(r, err))
			return nil
		}
		out.status(fmt.Sprintf("%s: digest: %s size: %d", tag, img.digest, len(manifest)))
		out.send(map[string]any{"aux": map[string]any{"Tag": tag, "Digest": img.digest, "Size": len(manifest)}})
	}
	return nil
}

// tagsOf are the tags that a repository has in the store.
func (x *session) tagsOf(repository string) []string {
	full, err := x.name(repository)
	if err != nil {
		return nil
	}
	prefix := strings.TrimSuffix(full, "latest")
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, img := range x.images {
		for _, n := range img.names {
			if tag, ok := strings.CutPrefix(n, prefix); ok {
				out = append(out, tag)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (x *session) pull(w http.ResponseWriter, r *http.Request) error {
	ref := r.URL.Query().Get("fromImage")
	if ref == "" {
		return fault.New(fault.Unimplemented, "docker import is not implemented.")
	}
	if tag := r.URL.Query().Get("tag"); strings.HasPrefix(tag, "sha256:") {
		ref += "@" + tag
	} else if tag != "" {
		ref += ":" + tag
	}
	name, err := x.name(ref)
	if err != nil {
		return err
	}
	// What fails before anything was said has a status of its own.
	out := sync.OnceValue(func() *stream { return newStream(w) })
	said := false
	digest, err := x.cfg.Registry.Pull(r.Context(), x.build, ref, func(line string) {
		said = true
		out().status(line)
	})
	id := ""
	if err == nil {
		id, err = x.configOf(r.Context(), digest)
	}
	if err == nil {
		err = x.add(id, digest, name)
	}
	if err != nil && said {
		out().fail(x.message(r, err))
		return nil
	}
	if err != nil {
		return err
	}
	out().status("Digest: " + digest)
	out().status("Status: Downloaded newer image for " + name)
	return nil
}

// configOf is the digest of an image's configuration.
func (x *session) configOf(ctx context.Context, digest string) (string, error) {
	m, err := x.manifest(ctx, digest)
	return m.Config.Digest.String(), err
}

func (x *session) listImages(w http.ResponseWriter, r *http.Request) error {
	x.mu.Lock()
	all := make([]image, len(x.images))
	for i, img := range x.images {
		all[i] = *img
	}
	x.mu.Unlock()
	out := []map[string]any{}
	for _, img := range slices.Backward(all) {
		one, created, err := x.describe(r.Context(), img)
		if err != nil {
			return err
		}
		one["Containers"], one["ParentId"], one["SharedSize"] = -1, "", -1
		one["Created"] = created.Unix()
		out = append(out, one)
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (x *session) describe(ctx context.Context, img image) (out map[string]any, created time.Time, err error) {
	m, err := x.inspect(ctx, img)
	if err != nil {
		return nil, created, err
	}
	var size int64
	var layers []string
	for _, l := range m.Layers {
		size += l.Size
		layers = append(layers, l.DiffID.String())
	}
	digests := []string{}
	for _, n := range img.names {
		if repository := n[:strings.LastIndexByte(n, ':')]; !strings.Contains(n, "@") {
			digests = append(digests, repository+"@"+img.digest)
		}
	}
	names := img.names
	if names == nil {
		names = []string{}
	}
	created = m.Config.Created.UTC()
	if created.IsZero() {
		created = img.made.UTC()
	}
	return map[string]any{
		"Id": img.id, "RepoTags": names, "RepoDigests": digests, "Created": created.Format(time.RFC3339Nano),
		"Size": size, "VirtualSize": size,
		"Architecture": m.Config.Architecture, "Os": m.Config.OS, "Author": m.Config.Author, "Config": m.Config.Config,
		"Labels": m.Config.Config.Labels,
		"RootFS": map[string]any{"Type": "layers", "Layers": layers},
	}, created, nil
}

func (x *session) inspectImage(w http.ResponseWriter, r *http.Request, ref string) error {
	img, err := x.find(ref)
	if err != nil {
		return err
	}
	out, _, err := x.describe(r.Context(), img)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (x *session) removeImage(w http.ResponseWriter, ref string) error {
	found, err := x.find(ref)
	if err != nil {
		return err
	}
	name, _ := x.name(ref) // an id is no name
	x.mu.Lock()
	defer x.mu.Unlock()
	out := []map[string]string{}
	for i, img := range x.images {
		if img.digest != found.digest {
			continue
		}
		gone := img.names
		if slices.Contains(img.names, name) {
			gone = []string{name}
		}
		for _, n := range gone {
			out = append(out, map[string]string{"Untagged": n})
		}
		img.names = slices.DeleteFunc(slices.Clone(img.names), func(n string) bool { return slices.Contains(gone, n) })
		if len(img.names) == 0 {
			out = append(out, map[string]string{"Deleted": img.id})
			x.images = slices.Delete(x.images, i, i+1)
		}
		break
	}
	reply(w, http.StatusOK, out)
	return nil
}
