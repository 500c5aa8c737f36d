package overlayfs

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
)

// Backend is the kernel's overlayfs. The zero value is ready to use.
type Backend struct {
	// AllowInside lets the upper layer and the work directory be inside a lower layer. The union then gives ELOOP
	// for these two directories: for a caller that covers them, or whose users have no business there.
	AllowInside bool

	// MapIDs lets it take uidmapping= and gidmapping=, by layers on id-mapped mounts. These are detached, so mountinfo does
	// not tell which directories the union writes in: for a caller that holds the View, and with it the lock on them, as
	// long as the union is in use.
	MapIDs bool

	form form // how layers are given to the kernel; anyForm but in tests
}

var _ mount.Backend = Backend{}

// Name is what the user writes after --backend.
func (Backend) Name() string { return "kernel" }

// Supports reports whether overlayfs can serve spec on this host, as far as that can be told without making a
// union: errors.ErrUnsupported where there is no overlayfs, no privilege, more layers than it takes, or a layer that
// it does not take. How deeply the layers' file systems are stacked, for one, is only seen by Open, whose errors
// match errors.ErrUnsupported in the same way.
func (b Backend) Supports(ctx context.Context, spec layer.Spec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		return err
	}
	defer stack.Close()
	u, err := b.check(stack)
	if err != nil {
		return err
	}
	defer u.close()
	if u.form == byText {
		return u.checkText()
	}
	fsfd, err := u.configure()
	if err != nil {
		return err
	}
	return unix.Close(fsfd)
}

// Open makes a detached overlay of spec's layers and holds the lock on its upper layer until the View is closed.
func (b Backend) Open(ctx context.Context, spec layer.Spec) (mount.View, error) {
	return b.OpenNext(ctx, spec, nil)
}

// OpenNext is Open for a union in the place of prev, which must not use its work directory any more: the kernel
// empties it (ovl_workdir_create).
func (b Backend) OpenNext(ctx context.Context, spec layer.Spec, prev *layer.Previous) (mount.View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stack, err := layer.OpenNext(spec, prev)
	if err != nil {
		return nil, err
	}
	fd, err := b.open(stack)
	if err != nil {
		stack.Close()
		return nil, err
	}
	return &view{fd: fd, stack: stack}, nil
}

func (b Backend) open(stack *layer.Stack) (int, error) {
	u, err := b.check(stack)
	if err != nil {
		return -1, err
	}
	defer u.close()
	fd, err := u.mount()
	if err != nil {
		return -1, err
	}
	if err := u.checkWritable(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// check opens the layers of stack for the kernel and makes the checks that overlayfs makes late, with errno alone,
// or not at all. The caller closes the union.
func (b Backend) check(stack *layer.Stack) (*union, error) {
	if name := stack.Spec.Options.FUSE.First(b.MapIDs); name != "" {
		return nil, cannot("overlayfs has nothing like option %q: drop it, or use --backend fuse", name)
	}
	if n := len(stack.Spec.Lower) + len(stack.Spec.Data); n > maxLayers {
		return nil, cannot("%d lower layers are more than the %d that overlayfs takes: merge some, or use --backend fuse, which has no limit", n, maxLayers)
	}
	if opt := stack.Spec.Options; opt.NFSExport && stack.Upper == nil && opt.RedirectDir != layer.RedirectNoFollow {
		return nil, cannot("without an upper layer, overlayfs takes nfs_export=on only with redirect_dir=nofollow: add that, or use --backend fuse")
	}
	u, err := openUnion(stack)
	if err != nil {
		return nil, err
	}
	if !b.AllowInside {
		err = u.checkInside()
	}
	if err == nil {
		u.form = b.form
		if u.form == anyForm {
			u.form, err = bestForm()
		}
	}
	if err == nil {
		err = u.mapIDs()
	}
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}
