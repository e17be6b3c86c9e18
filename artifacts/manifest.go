package artifacts

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"time"

	"giggle/blob"
	"giggle/fault"
)

// MaxManifest is the most bytes of a manifest, as the distribution specification asks registries to take at least.
const MaxManifest = 4 << 20

// maxReferences bounds what one manifest refers to. It is ours.
const maxReferences = 4096

// The media types of manifests that a repository takes.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// imageConfig are the media types of the configurations of images that can run.
var imageConfig = map[string]bool{
	"application/vnd.oci.image.config.v1+json": true, "application/vnd.docker.container.image.v1+json": true,
}

// Manifest is one version of an image: an image manifest, or an index of them.
type Manifest struct {
	Digest       blob.Digest
	MediaType    string
	Size         int64             // bytes of the manifest itself
	Blobs        []blob.Digest     `json:",omitempty"` // configuration and layers that the repository has
	Manifests    []blob.Digest     `json:",omitempty"` // of an index
	Subject      blob.Digest       `json:",omitempty"` // what it is attached to (a signature, an SBOM)
	ArtifactType string            `json:",omitempty"`
	Annotations  map[string]string `json:",omitempty"`

	// From the configuration of an image; the zero values where it does not say, and of what is no image.
	Built        time.Time `json:",omitzero"`
	OS           string    `json:",omitempty"`
	Architecture string    `json:",omitempty"`
	Variant      string    `json:",omitempty"`

	config blob.Digest           // of an image
	sizes  map[blob.Digest]int64 // of what it refers to, as it says
}

// descriptor is the part of an OCI content descriptor that matters here.
type descriptor struct {
	MediaType string      `json:"mediaType"`
	Digest    blob.Digest `json:"digest"`
	Size      int64       `json:"size"`
	URLs      []string    `json:"urls"`
}

// foreign reports whether a layer is one that registries do not hold: its bytes are at its URLs.
func (d descriptor) foreign() bool {
	return strings.Contains(d.MediaType, "nondistributable") || strings.Contains(d.MediaType, "foreign")
}

// ParseManifest reads a manifest: OCI image manifest and index (https://github.com/opencontainers/image-spec), Docker
// schema 2 and manifest list. Its media type is what the sender says or, where that is "", what it says itself. It
// fails with InvalidArgument.
func ParseManifest(body []byte, mediaType string) (Manifest, error) {
	bad := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, withReason(ReasonManifestInvalid, fault.InvalidArgument, "The manifest is invalid: %s.",
			fmt.Sprintf(format, args...))
	}
	if len(body) > MaxManifest {
		return bad("it has more than %d bytes", MaxManifest)
	}
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *descriptor       `json:"config"`
		Layers        []descriptor      `json:"layers"`
		Manifests     []descriptor      `json:"manifests"`
		Subject       *descriptor       `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return bad("it is not the JSON of one (%.200v)", err)
	}
	if doc.SchemaVersion != 2 {
		return bad("schemaVersion is %d, not 2", doc.SchemaVersion)
	}
	said, err := plainType(mediaType)
	if err != nil {
		return bad("its content type %.100q is malformed", mediaType)
	}
	switch {
	case said == "" && doc.MediaType != "":
		said = doc.MediaType
	case said == "" && doc.Manifests != nil:
		said = ociIndex
	case said == "":
		said = ociManifest
	case doc.MediaType != "" && doc.MediaType != said:
		return bad("its media type is %.100q, but it was sent as %.100q", doc.MediaType, said)
	}
	m := Manifest{
		MediaType:    said,
		Size:         int64(len(body)),
		ArtifactType: doc.ArtifactType,
		Annotations:  doc.Annotations,
		sizes:        map[blob.Digest]int64{},
	}
	if len(doc.Layers)+len(doc.Manifests) > maxReferences {
		return bad("it refers to more than %d blobs or manifests", maxReferences)
	}

	add := func(to *[]blob.Digest, d descriptor, what string) error {
		if _, err := blob.ParseDigest(string(d.Digest)); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if size, twice := m.sizes[d.Digest]; d.Size < 0 || twice && size != d.Size {
			return fmt.Errorf("%s: %s has a size that can't be", what, d.Digest)
		} else if twice {
			return nil
		}
		m.sizes[d.Digest] = d.Size
		*to = append(*to, d.Digest)
		return nil
	}
	switch said {
	case ociManifest, dockerManifest:
		// A document that is a manifest to one reader and an index to another: CVE-2021-41190.
		if doc.Manifests != nil {
			return bad("it has manifests as well as its own configuration")
		}
		if doc.Config == nil {
			return bad("it has no config")
		}
		if err := add(&m.Blobs, *doc.Config, "config"); err != nil {
			return bad("%v", err)
		}
		for i, l := range doc.Layers {
			if l.foreign() {
				continue
			}
			if err := add(&m.Blobs, l, fmt.Sprintf("layers[%d]", i)); err != nil {
				return bad("%v", err)
			}
		}
		if imageConfig[doc.Config.MediaType] {
			m.config = doc.Config.Digest
		}
		if m.ArtifactType == "" {
			m.ArtifactType = doc.Config.MediaType // distribution specification, "Listing Referrers"
		}
	case ociIndex, dockerList:
		if doc.Layers != nil || doc.Config != nil {
			return bad("it has layers as well as manifests")
		}
		for i, d := range doc.Manifests {
			if err := add(&m.Manifests, d, fmt.Sprintf("manifests[%d]", i)); err != nil {
				return bad("%v", err)
			}
		}
	default:
		return bad("%.100q is not a media type of manifests that is supported", said)
	}
	if doc.Subject != nil {
		d, err := blob.ParseDigest(string(doc.Subject.Digest))
		if err != nil {
			return bad("subject: %v", err)
		}
		m.Subject = d
	}
	return m, nil
}

// plainType returns a content type without its parameters.
func plainType(contentType string) (string, error) {
	if contentType == "" {
		return "", nil
	}
	t, _, err := mime.ParseMediaType(contentType)
	return t, err
}

// describe fills in what the configuration of an image says of it. A configuration that is not there, or is not what
// it is called, says nothing: storing the manifest finds out.
func (m *Manifest) describe(config []byte) {
	var doc struct {
		Created      time.Time `json:"created"`
		OS           string    `json:"os"`
		Architecture string    `json:"architecture"`
		Variant      string    `json:"variant"`
	}
	if json.Unmarshal(config, &doc) != nil || len(doc.OS)+len(doc.Architecture)+len(doc.Variant) > 200 {
		return
	}
	m.Built, m.OS, m.Architecture, m.Variant = doc.Created.UTC(), doc.OS, doc.Architecture, doc.Variant
}
