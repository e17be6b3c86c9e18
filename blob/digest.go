package blob

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"

	"giggle/fault"
)

// Digest names content: "sha256:" and 64 lower-case hexadecimal digits, or "sha512:" and 128
// (OCI image specification, descriptor.md, "Digests").
type Digest string

// algorithms holds the registered digest algorithms: the length of their hexadecimal form and how to compute them.
var algorithms = map[string]struct {
	digits int
	make   func() hash.Hash
}{
	"sha256": {2 * sha256.Size, sha256.New},
	"sha512": {2 * sha512.Size, sha512.New},
}

// ParseDigest returns s as a Digest, or an InvalidArgument fault. It is strict: no upper case, no other algorithm.
func ParseDigest(s string) (Digest, error) {
	algorithm, digits, _ := strings.Cut(s, ":")
	a, ok := algorithms[algorithm]
	if !ok || len(digits) != a.digits || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fault.New(fault.InvalidArgument,
			"%.140q is not a digest: want sha256: or sha512: and its lower-case hexadecimal digits.", s)
	}
	return Digest(s), nil
}

// Algorithm returns the part before the colon.
func (d Digest) Algorithm() string { a, _, _ := strings.Cut(string(d), ":"); return a }

// Hex returns the part after the colon.
func (d Digest) Hex() string { _, h, _ := strings.Cut(string(d), ":"); return h }

// FromBytes returns the sha256 digest of b.
func FromBytes(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// hasher returns the algorithm and a running hash for a wanted digest, sha256 when none is wanted.
func hasher(want Digest) (string, hash.Hash, error) {
	if want == "" {
		return "sha256", sha256.New(), nil
	}
	if _, err := ParseDigest(string(want)); err != nil {
		return "", nil, err
	}
	return want.Algorithm(), algorithms[want.Algorithm()].make(), nil
}

func digestOf(algorithm string, h hash.Hash) Digest {
	return Digest(algorithm + ":" + hex.EncodeToString(h.Sum(nil)))
}

// Bytes returns the sum itself. It fails with InvalidArgument for what ParseDigest refuses.
func (d Digest) Bytes() ([]byte, error) {
	if _, err := ParseDigest(string(d)); err != nil {
		return nil, err
	}
	return hex.DecodeString(d.Hex())
}
