package iam

import (
	"context"
	"encoding/hex"
	"maps"

	"giggle/fault"
	"giggle/store"
)

// revokedToken says until when a revoked token would have counted, by the token's id. The row goes with that time; a
// refresh token's stays, for it has none.
type revokedToken struct {
	Expires int64 // seconds since 1970, 0 for never
}

var revokedTokens = store.NewTable[revokedToken]("iam.revokedToken", "Revoked token")

// loadRevoked reads the revoked tokens into memory, where every check asks for them.
func (m *IAM) loadRevoked(ctx context.Context) error {
	all := make(map[string]int64)
	err := m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := revokedTokens.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			id, err := hex.DecodeString(r.Name)
			if err != nil {
				return err
			}
			all[string(id)] = r.Value.Expires
		}
		return nil
	})
	m.revoked.Store(&all)
	return err
}

// isRevoked reports whether a token, or the refresh token that it was made from, was revoked.
func (m *IAM) isRevoked(t *Token) bool {
	revoked := *m.revoked.Load()
	if len(revoked) == 0 {
		return false
	}
	_, own := revoked[string(t.ID)]
	_, grant := revoked[string(t.Grant)]
	return own || grant
}

// Revoke makes an access or refresh token worthless from the next request on, also after a crash. With a refresh token
// go all access tokens made from it, and an access token takes its refresh token along, as Google's does. It
// fails with InvalidArgument for what is not a valid token.
func (m *IAM) Revoke(ctx context.Context, token string) (err error) {
	defer fault.Wrap(&err, "iam.Revoke")
	t, ok := m.unseal(accessPrefix, token)
	if !ok {
		t, ok = m.unseal(refreshPrefix, token)
	}
	if !ok || !m.good(&t) {
		return fault.New(fault.InvalidArgument, "Token expired or revoked")
	}
	id, expires := t.ID, t.Expires
	if len(t.Grant) > 0 {
		id, expires = t.Grant, 0
	}
	return m.changeRevoked(ctx, func(tx *store.Tx, next map[string]int64) error {
		next[string(id)] = expires
		_, err := revokedTokens.Put(tx, hex.EncodeToString(id), revokedToken{Expires: expires})
		return err
	})
}

// changeRevoked forgets the revocations of tokens that have expired by themselves, makes a change, and brings it into
// memory once it is on disk.
func (m *IAM) changeRevoked(ctx context.Context, change func(tx *store.Tx, next map[string]int64) error) error {
	m.write.Lock()
	defer m.write.Unlock()
	var next map[string]int64
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		next = maps.Clone(*m.revoked.Load())
		now := m.now().Unix()
		for id, expires := range next {
			if expires == 0 || expires > now {
				continue
			}
			delete(next, id)
			if err := revokedTokens.Delete(tx, hex.EncodeToString([]byte(id))); err != nil &&
				!fault.Is(err, fault.NotFound) {
				return err
			}
		}
		return change(tx, next)
	})
	if err == nil {
		m.revoked.Store(&next)
	}
	return err
}

// expireRevoked forgets the revocations of tokens that have expired by themselves.
func (m *IAM) expireRevoked(ctx context.Context) error {
	return m.changeRevoked(ctx, func(*store.Tx, map[string]int64) error { return nil })
}
