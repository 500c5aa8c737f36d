package layer

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Ref names one object of a layer: an entry of an open directory or, with an empty name, what the descriptor
// itself refers to. It owns nothing, and is good as long as its directory or descriptor is. No method follows a symbolic link
// or opens a device or FIFO, but Open if it is told to.
type Ref struct {
	dir  *Dir // nil if fd is used
	fd   int
	name string
}

// RefFD is the object that the descriptor fd, O_PATH or not, refers to.
func RefFD(fd int) Ref { return Ref{fd: fd} }

// with calls f with the descriptor that the object is reached by.
func (r Ref) with(f func(fd int) error) error {
	if r.dir == nil {
		return f(r.fd)
	}
	return r.dir.with(f)
}

func (r Ref) at() int {
	if r.name == "" {
		return unix.AT_EMPTY_PATH
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

// Stat is fstatat(2).
func (r Ref) Stat(st *unix.Stat_t) error {
	return r.with(func(fd int) error { return sys.Fstatat(fd, r.name, st, r.at()|unix.AT_NO_AUTOMOUNT) })
}

// Statx is statx(2), for what Stat does not tell: the time of birth.
func (r Ref) Statx(mask int, stx *unix.Statx_t) error {
	return r.with(func(fd int) error { return sys.Statx(fd, r.name, r.at()|unix.AT_NO_AUTOMOUNT, mask, stx) })
}

// Open opens the object with the given flags; O_NOFOLLOW is added.
func (r Ref) Open(flags int) (fd int, err error) {
	fd = -1
	err = r.with(func(at int) (err error) {
		if r.name == "" { // through the magic link, since an O_PATH descriptor cannot be opened again by itself
			fd, err = sys.Openat(unix.AT_FDCWD, sys.ProcPath(at, ""), flags, 0)
		} else {
			fd, err = sys.Openat(at, r.name, flags|unix.O_NOFOLLOW, 0)
		}
		return err
	})
	return fd, err
}

// OpenPath opens an O_PATH descriptor of the object: it stays the same object whatever happens to its name.
func (r Ref) OpenPath() (fd int, err error) {
	fd = -1
	err = r.with(func(at int) (err error) {
		if r.name == "" {
			fd, err = sys.Dup(at)
		} else {
			fd, err = sys.Openat(at, r.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		}
		return err
	})
	return fd, err
}

// Readlink returns the target of a symbolic link.
func (r Ref) Readlink() (string, error) {
	var buf [unix.PathMax]byte
	n := 0
	err := r.with(func(fd int) (err error) {
		n, err = sys.Readlinkat(fd, r.name, buf[:])
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Chown sets owner and group; -1 (as uint32) leaves one as it is. The system clears set-user-id, set-group-id and
// file capabilities of what is not a directory.
func (r Ref) Chown(uid, gid uint32) error {
	return r.with(func(fd int) error { return sys.Fchownat(fd, r.name, int(int32(uid)), int(int32(gid)), r.at()) })
}

// Chmod sets the permission bits. The object must not be a symbolic link.
func (r Ref) Chmod(mode uint32) error {
	return r.with(func(fd int) error {
		if r.name == "" {
			return sys.Fchmodat(unix.AT_FDCWD, sys.ProcPath(fd, ""), mode)
		}
		return sys.Fchmodat(fd, r.name, mode)
	})
}

// Utimens sets access and modification time; UTIME_OMIT and UTIME_NOW as in utimensat(2).
func (r Ref) Utimens(ts [2]unix.Timespec) error {
	return r.with(func(fd int) error {
		if r.name == "" { // AT_EMPTY_PATH is known to utimensat(2) only since Linux 5.8
			return sys.Utimensat(unix.AT_FDCWD, sys.ProcPath(fd, ""), &ts, 0)
		}
		return sys.Utimensat(fd, r.name, &ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Truncate sets the size of a regular file, in bytes.
func (r Ref) Truncate(size int64) error {
	fd, err := r.Open(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return sys.Ftruncate(fd, size)
}

// Getxattr returns the value of an extended attribute: see [sys.Getxattr].
func (r Ref) Getxattr(attr string) (value []byte, err error) {
	err = r.with(func(fd int) (err error) {
		value, err = sys.Getxattr(fd, r.name, attr)
		return err
	})
	return value, err
}

// GetxattrInto reads into buf and returns the size of the value; ERANGE if buf is too small.
func (r Ref) GetxattrInto(attr string, buf []byte) (n int, err error) {
	err = r.with(func(fd int) (err error) {
		n, err = sys.GetxattrInto(fd, r.name, attr, buf)
		return err
	})
	return n, err
}

// Setxattr sets an attribute; flags as in setxattr(2).
func (r Ref) Setxattr(attr string, value []byte, flags int) error {
	return r.with(func(fd int) error { return sys.Setxattr(fd, r.name, attr, value, flags) })
}

// Removexattr removes an attribute.
func (r Ref) Removexattr(attr string) error {
	return r.with(func(fd int) error { return sys.Removexattr(fd, r.name, attr) })
}

// Listxattr lists the names of the attributes.
func (r Ref) Listxattr() (names []string, err error) {
	err = r.with(func(fd int) (err error) {
		names, err = sys.Listxattr(fd, r.name)
		return err
	})
	return names, err
}

// LinkTo gives the object one more name. EEXIST if the name is taken.
func (r Ref) LinkTo(dir *Dir, name string) error {
	return r.with(func(fd int) error {
		return dir.with(func(to int) error {
			if r.name == "" { // the way that needs no CAP_DAC_READ_SEARCH (linkat(2), AT_EMPTY_PATH)
				return sys.Linkat(unix.AT_FDCWD, sys.ProcPath(fd, ""), to, name, unix.AT_SYMLINK_FOLLOW)
			}
			return sys.Linkat(fd, r.name, to, name, 0)
		})
	})
}

// Handle is the persistent file handle of the object: see [sys.FileHandle].
func (r Ref) Handle() (typ int32, handle []byte, err error) {
	err = r.with(func(fd int) (err error) {
		typ, handle, err = sys.FileHandle(fd, r.name)
		return err
	})
	return typ, handle, err
}
