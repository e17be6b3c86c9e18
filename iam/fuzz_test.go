package iam_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
)

// What is uploaded as a key is refused or taken as it is, and what is refused is the caller's fault.
func FuzzUploadKey(f *testing.F) {
	w := newWorld(f)
	a, err := w.CreateAccount(f.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		f.Fatal(err)
	}
	k, _, err := w.CreateKey(f.Context(), "giggle", a.Email)
	if err != nil {
		f.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate})
	f.Add(good)
	f.Add(append(bytes.Clone(good), good...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		up, err := w.UploadKey(t.Context(), "giggle", a.Email, b)
		switch {
		case err == nil:
			if err := w.DeleteKey(t.Context(), "giggle", a.Email, up.ID); err != nil {
				t.Fatal(err)
			}
		case !fault.Is(err, fault.InvalidArgument) && !fault.Is(err, fault.AlreadyExists):
			t.Errorf("%q: %v", b, err)
		}
	})
}

// Whatever is sent as a token is refused as the caller's fault, unless it is one of those made here.
func FuzzTokens(f *testing.F) {
	w := newWorld(f)
	a, err := w.CreateAccount(f.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		f.Fatal(err)
	}
	s := w.signer(f, a.Email)
	now := w.now.Unix()
	access, _, err := w.AccessToken(w.Owner(), nil)
	if err != nil {
		f.Fatal(err)
	}
	refresh, err := w.RefreshToken(w.Owner(), nil)
	if err != nil {
		f.Fatal(err)
	}
	id, err := w.IDToken(w.Owner(), myURL)
	if err != nil {
		f.Fatal(err)
	}
	own := raw(f, s.key, header(s.kid),
		with(map[string]any{"iss": a.Email, "sub": a.Email, "iat": now, "exp": now + int64(time.Hour/time.Second),
			"aud": "https://run.googleapis.com/"}))
	made := map[string]bool{access: true, refresh: true, id: true, own: true}
	for token := range made {
		f.Add(token)
		f.Add(token[:len(token)-1])
		f.Add(token + "=")
	}
	f.Add(header(s.kid))
	f.Add("..")
	f.Add("ya29.giggle.")
	f.Fuzz(func(t *testing.T, token string) {
		// A header's white space around a token is no part of it.
		if p, err := w.BearerFor(t.Context(), "Bearer "+token, runHost); err == nil && !made[strings.TrimSpace(token)] {
			t.Errorf("bearer %q is %s", token, p)
		} else if err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("bearer %q: %v", token, err)
		}
		if made[token] {
			return
		}
		if c, err := w.VerifyIDToken(token); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("ID token %q: %v, %v", token, c, err)
		}
		if _, err := w.CheckAssertion(t.Context(), token, endpoint); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("assertion %q: %v", token, err)
		}
		if _, err := w.CheckRefreshToken(token); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("refresh token %q: %v", token, err)
		}
		if err := w.Revoke(t.Context(), token); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("revoke %q: %v", token, err)
		}
	})
}

// Header and claims of a JWT that is well signed are read or refused; none is anybody but the account of the key.
func FuzzSignedJWT(f *testing.F) {
	w := newWorld(f)
	a, err := w.CreateAccount(f.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		f.Fatal(err)
	}
	s := w.signer(f, a.Email)
	now := w.now.Unix()
	good := map[string]any{"iss": a.Email, "sub": a.Email, "iat": now, "exp": now + 3600, "scope": "s"}
	f.Add(header(s.kid), with(good))
	f.Add(header(s.kid), with(good, "aud", []string{"https://run.googleapis.com/"}, "scope", nil))
	f.Add(header(s.kid), with(good, "exp", -1e99, "aud", map[string]any{}))
	f.Add("{}", "null")
	f.Fuzz(func(t *testing.T, head, payload string) {
		token := raw(t, s.key, head, payload)
		p, err := w.BearerFor(t.Context(), "Bearer "+token, runHost)
		if err == nil && p != iam.ServiceAccount(a.Email) || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%q %q: %s, %v", head, payload, p, err)
		}
		as, err := w.CheckAssertion(t.Context(), token, endpoint)
		if err == nil && as.Principal != iam.ServiceAccount(a.Email) ||
			err != nil && !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%q %q: %v, %v", head, payload, as, err)
		}
	})
}
