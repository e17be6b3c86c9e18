package modproxy_test

import (
	"context"
	"testing"
)

// contextUntil is a context that ends when something arrives on c.
func contextUntil(t *testing.T, c <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		select {
		case <-c:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
