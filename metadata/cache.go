package metadata

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// minLeft is the life that every token handed out has left at least: Google's libraries ask again 3:45 before the end,
// and must get a newer one then.
const minLeft = 5 * time.Minute

// maxCached bounds the tokens of one caller; who asks for more audiences than this gets them made again.
const maxCached = 64

// cached is one caller's tokens, made once and renewed early.
type cached struct {
	tokens Tokens
	now    func() time.Time

	mu   sync.Mutex
	made map[string]made
}

// made is a token and its end.
type made struct {
	token   string
	expires time.Time
}

func newCached(tokens Tokens, now func() time.Time) *cached {
	return &cached{tokens: tokens, now: now, made: make(map[string]made)}
}

func (c *cached) accessToken(ctx context.Context, account string, scopes []string) (string, time.Time, error) {
	scopes = slices.Sorted(slices.Values(scopes))
	return c.get("access "+strings.Join(scopes, " "), func() (string, time.Time, error) {
		return c.tokens.AccessToken(ctx, account, scopes)
	})
}

func (c *cached) idToken(ctx context.Context, account, audience string) (string, error) {
	token, _, err := c.get("id "+audience, func() (string, time.Time, error) {
		token, err := c.tokens.IDToken(ctx, account, audience)
		return token, expiry(token), err
	})
	return token, err
}

// get returns a token from the cache, or makes it. Two callers at once may both make it: that does no harm.
func (c *cached) get(key string, make func() (string, time.Time, error)) (string, time.Time, error) {
	c.mu.Lock()
	m, ok := c.made[key]
	c.mu.Unlock()
	if ok && m.expires.Sub(c.now()) >= minLeft {
		return m.token, m.expires, nil
	}
	token, expires, err := make()
	if err != nil || expires.Sub(c.now()) < minLeft {
		return token, expires, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.made) >= maxCached {
		clear(c.made)
	}
	c.made[key] = made{token, expires}
	return token, expires, nil
}

// expiry is the exp claim of a JWT of our own, unverified; the zero time where there is none.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return time.Time{}
	}
	return time.Unix(claims.Expires, 0)
}
