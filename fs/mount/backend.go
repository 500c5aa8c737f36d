package mount

import (
	"context"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Backend serves unions in one way.
type Backend interface {
	// Name is what the user writes after --backend: "fuse" or "kernel".
	Name() string

	// Supports reports whether this backend can serve spec on this host: nil if it can, an error that matches
	// errors.ErrUnsupported, with the reason and the fix, if it cannot, any other error if that could not be
	// told. It mounts nothing.
	Supports(ctx context.Context, spec layer.Spec) error

	// Open starts to serve spec. The View it returns is live and detached: not in the file tree yet. Errors
	// are one line with the cause and the fix; nothing is left behind by a failed Open.
	Open(ctx context.Context, spec layer.Spec) (View, error)
}

// View is one live union.
type View interface {
	// FD is the descriptor of the detached mount, as fsmount(2) returns it: what move_mount(2) attaches, in
	// this mount namespace or, after it was passed on, in another one. The View owns it; it keeps the mount busy
	// until Attach, Release or Close. It is -1 after that, and where the kernel has no detached mounts (before Linux
	// 5.2); then Attach is the only way. Who serves the view must ask it nothing through FD, not even fstat(2): killed
	// while it waits for itself, such a process never ends.
	FD() int

	// Release closes FD when somebody else has attached it: the mount then lives as long as the mount namespace that
	// it is in. Who serves the view must not be who holds it last. If such a process is killed, the kernel unmounts in
	// its name, and may wait for an answer that nobody is left to give (transport/doc.go).
	Release() error

	// Attach mounts the view on the directory target, in the mount namespace of the caller. At most one of
	// Attach and a move_mount of FD succeeds.
	Attach(target string) error

	// Served reports whether this process answers the requests of the view, and so must stay alive as long
	// as it is used.
	Served() bool

	// Wait returns when the view is mounted nowhere any more (nil), or can no longer be served (why).
	Wait() error

	// Close releases what the View holds in this process. A view that was never attached ends with it; one
	// that is attached and Served is aborted: its users get ENOTCONN. Unmount first.
	Close() error
}
