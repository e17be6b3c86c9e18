package registry

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"time"

	"giggle/fault"
	"giggle/iam"
)

// maxKeyFile bounds the file of a service account's key; they have about 2,400 bytes.
const maxKeyFile = 16 << 10

// keyAudience is whom the assertions are for that are made here out of key files: nobody else takes them.
const keyAudience = "giggle:artifacts/registry"

// keyHolder returns the account whose key file is the password of a log-in with _json_key. That the key is in use is
// shown as everywhere else, by something that it signed.
func (s *server) keyHolder(ctx context.Context, password string, encoded bool) (iam.Principal, error) {
	file := []byte(password)
	bad := iam.Unauthenticated("")
	if len(file) > 2*maxKeyFile {
		return iam.Anonymous, bad
	}
	if encoded {
		var err error
		if file, err = base64.StdEncoding.DecodeString(password); err != nil {
			return iam.Anonymous, bad
		}
	}
	raw, err := assertion(file, s.Now())
	if err != nil {
		return iam.Anonymous, bad
	}
	a, err := s.Identity.CheckAssertion(ctx, raw, keyAudience)
	if fault.Is(err, fault.InvalidArgument) {
		return iam.Anonymous, bad
	}
	return a.Principal, err
}

// assertion is a JWT signed with the key of a key file (RFC 7523). It fails with InvalidArgument.
func assertion(file []byte, now time.Time) (string, error) {
	bad := fault.New(fault.InvalidArgument, "This is not the file of a service account's key.")
	var key struct {
		ID      string `json:"private_key_id"`
		Email   string `json:"client_email"`
		Private string `json:"private_key"`
	}
	if len(file) > maxKeyFile || json.Unmarshal(file, &key) != nil {
		return "", bad
	}
	block, _ := pem.Decode([]byte(key.Private))
	if block == nil {
		return "", bad
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", bad
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok || private.N.BitLen() > 4096 {
		return "", bad
	}
	part := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b), err
	}
	header, err := part(map[string]string{"alg": "RS256", "typ": "JWT", "kid": key.ID})
	if err != nil {
		return "", err
	}
	claims, err := part(map[string]any{
		"iss": key.Email, "sub": key.Email, "aud": keyAudience, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(header + "." + claims))
	signature, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, sum[:])
	if err != nil {
		return "", bad
	}
	return header + "." + claims + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
