package giggle

import (
	"context"
	"net"
	"slices"

	"giggle/fault"
	"giggle/iam"
	"giggle/peer"
)

// Owners are the local users who own the platform: root, and those who started it.
type Owners struct {
	UIDs  []int
	Owner iam.Principal // whom they are in the platform
}

// Is reports whether a local user is one of them.
func (o Owners) Is(uid int) bool { return uid == 0 || slices.Contains(o.UIDs, uid) }

// Caller returns who a local user is. It fails with PermissionDenied for one who isn't known.
func (o Owners) Caller(uid int) (iam.Principal, error) {
	if !o.Is(uid) {
		return iam.Anonymous, fault.New(fault.PermissionDenied,
			"The local user %d is not the owner of this platform: it was started by another user. Root, and the user who ran `sudo giggle up`, are.",
			uid)
	}
	return o.Owner, nil
}

// uidKey is the context key of the local user on the other end of the socket.
type uidKey struct{}

// withLocalUser is an http.Server.ConnContext for the platform's socket: the kernel says who is on the other end.
func withLocalUser(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peer.User(conn)
	if err != nil {
		uid = -1
	}
	return context.WithValue(ctx, uidKey{}, uid)
}

// localUser is the uid on the other end of the socket, or -1, which is not known and not root's.
func localUser(ctx context.Context) int {
	if uid, ok := ctx.Value(uidKey{}).(int); ok {
		return uid
	}
	return -1
}
