package iam_test

import (
	"testing"

	"giggle/iam"
)

func BenchmarkBearerCached(b *testing.B) {
	w := newWorld(b)
	a, err := w.CreateAccount(b.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		b.Fatal(err)
	}
	access, _, err := w.AccessToken(iam.ServiceAccount(a.Email), []string{iam.ScopeCloudPlatform})
	if err != nil {
		b.Fatal(err)
	}
	// One revoked token, so that the check has something to look into.
	gone, _, err := w.AccessToken(w.Owner(), nil)
	if err == nil {
		err = w.Revoke(b.Context(), gone)
	}
	if err != nil {
		b.Fatal(err)
	}
	s := w.signer(b, a.Email)
	now := w.now.Unix()
	own := raw(b, s.key, header(s.kid),
		with(map[string]any{"iss": a.Email, "sub": a.Email, "iat": now, "exp": now + 3600,
			"aud": "https://run.googleapis.com/"}))
	for name, token := range map[string]string{"access": access, "self-signed": own} {
		b.Run(name, func(b *testing.B) {
			header := "Bearer " + token
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.BearerFor(b.Context(), header, runHost); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIDTokenCached(b *testing.B) {
	w := newWorld(b)
	raw, err := w.IDToken(w.Owner(), myURL)
	if err != nil {
		b.Fatal(err)
	}
	audiences := []string{iam.GcloudClientID, myURL}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.CheckIDToken(raw, audiences...); err != nil {
			b.Fatal(err)
		}
	}
}
