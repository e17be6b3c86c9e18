package iam

import "sync"

// tokenCache remembers what tokens say whose signature was verified: RSA costs 30 µs and an HMAC 2 µs, this 60 ns.
// That a token is still good, by time, revocation and account, is asked at every use.
type tokenCache[T any] struct {
	mu sync.RWMutex
	m  map[string]*T
}

// Bounds of the memory that a flood of tokens can take.
const (
	maxCached      = 4096 // tokens
	maxCachedToken = 2048 // bytes of one
)

func (c *tokenCache[T]) init() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m = make(map[string]*T)
}

// get returns what a token says, not to be changed, or nil.
func (c *tokenCache[T]) get(raw string) *T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[raw]
}

func (c *tokenCache[T]) put(raw string, v *T) {
	if len(raw) > maxCachedToken {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxCached {
		clear(c.m)
	}
	c.m[raw] = v
}
