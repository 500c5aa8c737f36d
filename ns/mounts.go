package ns

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// The system calls of the plan. Each acts beneath the directory descriptor root; paths are absolute, seen from
// there. Errors are *fs.PathError.

// makePrivate cuts every mount of this namespace off from its peers in others, and so from the host.
func makePrivate() error {
	return pathError("mount", "/", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// attach puts the detached mount root on top of "/". This process does not see it there, since its own root stays
// what it was, and no directory of the host has to be found or made for it. A clone of a shared mount is shared,
// hence private again.
func attach(root int) error {
	err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err == nil {
		err = unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	}
	return pathError("move_mount", "/", err)
}

// open opens path, close-on-exec. No part of path may be a symbolic link; it cannot lead out of root.
func open(root int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd := -1
	err := sys.Retry(func() (err error) {
		fd, err = unix.Openat2(root, name, &how)
		return err
	})
	return fd, pathError("open", name, err)
}

// in calls f with the directory that holds name and the last part of name.
func in(root int, call, name string, f func(dir int, base string) error) error {
	dir, err := open(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return pathError(call, name, sys.Retry(func() error { return f(dir, path.Base(name)) }))
}

// mkdir makes a directory unless something has its name; whoever mounts on it finds out what that is.
func mkdir(root int, name string, mode uint32) error {
	return in(root, "mkdir", name, func(dir int, base string) error {
		err := unix.Mkdirat(dir, base, mode)
		if err == unix.EEXIST {
			return nil
		}
		return err
	})
}

func mknod(root int, name string, mode uint32, dev uint64) error {
	return in(root, "mknod", name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, unix.S_IFCHR|mode, int(dev))
	})
}

func symlink(root int, name, target string) error {
	return in(root, "symlink", name, func(dir int, base string) error {
		return unix.Symlinkat(target, dir, base)
	})
}

// setAttr sets MOUNT_ATTR_* of a mount, and of those below it if recursive.
func setAttr(mnt, attr int, recursive bool) error {
	if attr == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mnt, "", flags, &unix.MountAttr{Attr_set: uint64(attr)})
}

// pivot makes root the root and the working directory of every thread here, and detaches the old root with all
// that is mounted on it. pivot_root(".", ".") needs no directory for the old root: it stacks it on top of the new
// one, see NOTES in pivot_root(2).
func pivot(root int) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", "/", err)
	}
	defer unix.Close(old)
	if err := unix.Fchdir(root); err != nil {
		return pathError("fchdir", "/", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return pathError("pivot_root", "/", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return pathError("fchdir", "/", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return pathError("umount", "/", err)
	}
	return pathError("fchdir", "/", unix.Fchdir(root))
}

// nullDevice is the number of /dev/null.
var nullDevice = unix.Mkdev(1, 3)

// isDevice reports whether fd is the character device dev.
func isDevice(fd int, dev uint64) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && uint64(st.Rdev) == dev
}

// openNull opens the container's /dev/null, and nothing else that may have its name.
func openNull(root int, flags uint64) (int, error) {
	fd, err := open(root, "/dev/null", flags)
	if err == nil && !isDevice(fd, nullDevice) {
		unix.Close(fd)
		return -1, pathError("open", "/dev/null", errors.New("it is another file by now"))
	}
	return fd, err
}

// containNull replaces the descriptor fd, if it is /dev/null, by the container's.
func containNull(root, fd int) error {
	if !isDevice(fd, nullDevice) {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return pathError("fcntl", "/dev/null", err)
	}
	ours, err := openNull(root, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(ours)
	if flags&unix.FD_CLOEXEC != 0 {
		flags = unix.O_CLOEXEC
	}
	return pathError("dup3", "/dev/null", unix.Dup3(ours, fd, flags))
}

// pathError returns err as a *fs.PathError, nil if err is nil.
func pathError(call, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: call, Path: name, Err: err}
}
