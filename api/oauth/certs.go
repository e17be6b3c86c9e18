package oauth

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"

	"github.com/go-jose/go-jose/v4"

	"giggle/fault"
	"giggle/iam"
)

// certs answers with the public keys that verify ID tokens (RFC 7517).
func (s *server) certs(w http.ResponseWriter, _ *http.Request) {
	writePublic(w, s.tokens.KeySet())
}

// certificates answers with the same keys in certificates, PEM by key id.
func (s *server) certificates(w http.ResponseWriter, _ *http.Request) {
	all, err := s.tokens.KeyCertificates()
	if err != nil {
		s.internal(w, err)
		return
	}
	out := make(map[string]string)
	for id, der := range all {
		out[id] = toPEM(der)
	}
	writePublic(w, out)
}

// accountCertificates answers with the certificates of a service account's keys, PEM by key id.
func (s *server) accountCertificates(w http.ResponseWriter, r *http.Request) {
	if keys, ok := s.keysOf(w, r); ok {
		out := make(map[string]string)
		for _, k := range keys {
			out[k.ID] = toPEM(k.Certificate)
		}
		writePublic(w, out)
	}
}

// accountKeys answers with the public keys of a service account (RFC 7517).
func (s *server) accountKeys(w http.ResponseWriter, r *http.Request) {
	keys, ok := s.keysOf(w, r)
	if !ok {
		return
	}
	out := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		c, err := x509.ParseCertificate(k.Certificate)
		if err != nil {
			s.internal(w, err)
			return
		}
		out.Keys = append(out.Keys, jose.JSONWebKey{Key: c.PublicKey, KeyID: k.ID, Algorithm: "RS256", Use: "sig"})
	}
	writePublic(w, out)
}

// keysOf returns the keys of the service account in the path that count now. If not, it has answered.
func (s *server) keysOf(w http.ResponseWriter, r *http.Request) ([]iam.Key, bool) {
	all, err := s.tokens.Keys(r.Context(), "-", r.PathValue("email"))
	if fault.Is(err, fault.NotFound) {
		writeError(w, http.StatusNotFound, "not_found", "There is no such service account.")
		return nil, false
	}
	if err != nil {
		s.internal(w, err)
		return nil, false
	}
	now := s.now()
	var out []iam.Key
	for _, k := range all {
		if !k.Disabled && !k.Account.Disabled && !now.Before(k.From) && now.Before(k.Until) {
			out = append(out, k)
		}
	}
	return out, true
}

func toPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// writePublic answers with public keys, which a client may keep for an hour: a key outlives what it signed by more.
func writePublic(w http.ResponseWriter, v any) {
	w.Header().Set("Cache-Control", "public, max-age=3600, must-revalidate, no-transform")
	writeJSON(w, http.StatusOK, v)
}
