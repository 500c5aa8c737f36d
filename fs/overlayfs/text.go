package overlayfs

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// mountByText makes the union with mount(2), the only way to more than a few layers before Linux 6.7.
//
// mount(2) attaches what it makes, and nobody shall see it before the owner attaches it. So that happens in a mount
// namespace that one thread has for itself: on a tmpfs there, from which the union is then taken off as a detached
// copy with open_tree(2). The tmpfs covers the root directory of that namespace, which costs no directory in the file
// tree and is not in the way of paths: they are looked up from below it.
func (u *union) mountByText() (int, error) {
	if err := u.checkText(); err != nil {
		return -1, err
	}
	tmpfs, err := detachedTmpfs(0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(tmpfs)
	for _, name := range []string{"empty", "union"} {
		if err := unix.Mkdirat(tmpfs, name, 0o755); err != nil {
			return -1, fmt.Errorf("make a mount point: %w", err)
		}
	}
	fd := -1
	err = inPrivateNamespace(func() error {
		if err := unix.MoveMount(tmpfs, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach a tmpfs in a namespace of its own: %w", err)
		}
		// Not left to the end of the namespace, which may come later: nothing of the union shall outlive its View.
		defer unix.Unmount(sys.ProcPath(tmpfs, ""), unix.MNT_DETACH)
		target := sys.ProcPath(tmpfs, "union")
		if err := unix.Mount(u.source(), target, "overlay", u.mountFlags(), u.text(tmpfs)); err != nil {
			return u.explain(failure{errno: err})
		}
		clone, err := unix.OpenTree(tmpfs, "union", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("detach the new overlay: %w", err)
		}
		fd = clone
		return nil
	})
	return fd, err
}

// checkText reports whether the options fit mount(2).
func (u *union) checkText() error {
	if n, page := len(u.text(0)), os.Getpagesize(); n >= page {
		return cannot("the layers' names make %d bytes of options, and mount(2) takes %d: use fewer or shorter names (relative ones count as they are written), Linux 6.7 or later, or --backend fuse", n, page-1)
	}
	return nil
}

// text is the union as the last argument of mount(2). Below tmpfs there is an empty directory, for a union of one layer.
func (u *union) text(tmpfs int) string {
	var words, lowers []string
	data := ""
	for _, o := range u.options() {
		switch {
		case o.name == "lowerdir+":
			lowers = append(lowers, escapeLower.Replace(o.dir.path))
		case o.name == "datadir+":
			data += "::" + escapeLower.Replace(o.dir.path)
		case o.dir != nil: // absolute, so that others can tell from mountinfo which directories are in use
			words = append(words, o.name+"="+escapeDir.Replace(o.dir.realPath()))
		default:
			words = append(words, o.String())
		}
	}
	if u.upper == nil && len(lowers) == 1 && data == "" {
		lowers = append(lowers, sys.ProcPath(tmpfs, "empty"))
	}
	return strings.Join(append(words, "lowerdir="+strings.Join(lowers, ":")+data), ",")
}

var (
	escapeDir   = strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	escapeLower = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
)

func (u *union) mountFlags() uintptr {
	o := u.stack.Spec.Options
	var flags uintptr
	for _, f := range []struct {
		set  bool
		flag uintptr
	}{
		{o.ReadOnly, unix.MS_RDONLY},
		{o.NoSuid, unix.MS_NOSUID},
		{o.NoDev, unix.MS_NODEV},
		{o.NoExec, unix.MS_NOEXEC},
		{o.Atime == layer.AtimeNever, unix.MS_NOATIME},
		{o.Atime == layer.AtimeAlways, unix.MS_STRICTATIME},
		{o.NoDirTime, unix.MS_NODIRATIME},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// inPrivateNamespace runs f on a thread with a mount namespace, root and working directory of its own, copies of the
// caller's. The thread ends with f.
func inPrivateNamespace(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine. It cannot end the first thread of the
		// process, whose namespace is also what /proc/self shows; a second goroutine finds another thread.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- inPrivateNamespace(f)
			runtime.UnlockOSThread()
			return
		}
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare the mount namespace: %w", err)
			}
			// Or mounts would spread to the namespace that this one was copied from.
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("make all mounts private in a namespace of its own: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}
