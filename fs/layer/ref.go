package layer

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Ref names one object of a layer: an entry of an open directory or, with an empty name, what the descriptor
// itself refers to. It owns nothing, and is good as long as its descriptor is. No method follows a symbolic link
// or opens a device or FIFO, but Open if it is told to.
type Ref struct {
	fd   int
	name string
}

// RefFD is the object that the descriptor fd, O_PATH or not, refers to.
func RefFD(fd int) Ref { return Ref{fd: fd} }

func (r Ref) at() int {
	if r.name == "" {
		return unix.AT_EMPTY_PATH
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

// Stat is fstatat(2).
func (r Ref) Stat(st *unix.Stat_t) error {
	return unix.Fstatat(r.fd, r.name, st, r.at()|unix.AT_NO_AUTOMOUNT)
}

// Statx is statx(2), for what Stat does not tell: the time of birth.
func (r Ref) Statx(mask int, stx *unix.Statx_t) error {
	return unix.Statx(r.fd, r.name, r.at()|unix.AT_NO_AUTOMOUNT, mask, stx)
}

// Open opens the object with the given flags; O_NOFOLLOW is added.
func (r Ref) Open(flags int) (int, error) {
	if r.name == "" { // through the magic link, since an O_PATH descriptor cannot be opened again by itself
		return sys.Openat(unix.AT_FDCWD, sys.ProcPath(r.fd, ""), flags, 0)
	}
	return sys.Openat(r.fd, r.name, flags|unix.O_NOFOLLOW, 0)
}

// OpenPath opens an O_PATH descriptor of the object: it stays the same object whatever happens to its name.
func (r Ref) OpenPath() (int, error) {
	if r.name == "" {
		return unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	return sys.Openat(r.fd, r.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// Readlink returns the target of a symbolic link.
func (r Ref) Readlink() (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(r.fd, r.name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Chown sets owner and group; -1 (as uint32) leaves one as it is. The system clears set-user-id, set-group-id and
// file capabilities of what is not a directory.
func (r Ref) Chown(uid, gid uint32) error {
	return unix.Fchownat(r.fd, r.name, int(int32(uid)), int(int32(gid)), r.at())
}

// Chmod sets the permission bits. The object must not be a symbolic link.
func (r Ref) Chmod(mode uint32) error {
	if r.name == "" {
		return unix.Chmod(sys.ProcPath(r.fd, ""), mode)
	}
	return unix.Fchmodat(r.fd, r.name, mode, 0)
}

// Utimens sets access and modification time; UTIME_OMIT and UTIME_NOW as in utimensat(2).
func (r Ref) Utimens(ts [2]unix.Timespec) error {
	if r.name == "" { // AT_EMPTY_PATH is known to utimensat(2) only since Linux 5.8, and refused for O_PATH by some
		return unix.UtimesNanoAt(unix.AT_FDCWD, sys.ProcPath(r.fd, ""), ts[:], 0)
	}
	return unix.UtimesNanoAt(r.fd, r.name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// Truncate sets the size of a regular file, in bytes.
func (r Ref) Truncate(size int64) error {
	fd, err := r.Open(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return sys.Retry(func() error { return unix.Ftruncate(fd, size) })
}

// Getxattr, GetxattrInto, Setxattr, Removexattr and Listxattr are the l*xattr(2) calls on the object.
func (r Ref) Getxattr(attr string) ([]byte, error) { return sys.Getxattr(r.fd, r.name, attr) }

// GetxattrInto reads into buf and returns the size of the value; ERANGE if buf is too small.
func (r Ref) GetxattrInto(attr string, buf []byte) (int, error) {
	return sys.GetxattrInto(r.fd, r.name, attr, buf)
}

// Setxattr sets an attribute; flags as in setxattr(2).
func (r Ref) Setxattr(attr string, value []byte, flags int) error {
	return sys.Setxattr(r.fd, r.name, attr, value, flags)
}

// Removexattr removes an attribute.
func (r Ref) Removexattr(attr string) error { return sys.Removexattr(r.fd, r.name, attr) }

// Listxattr lists the names of the attributes.
func (r Ref) Listxattr() ([]string, error) { return sys.Listxattr(r.fd, r.name) }

// LinkTo gives the object one more name. EEXIST if the name is taken.
func (r Ref) LinkTo(dir *Dir, name string) error {
	if r.name == "" { // the way that needs no CAP_DAC_READ_SEARCH (linkat(2), AT_EMPTY_PATH)
		return unix.Linkat(unix.AT_FDCWD, sys.ProcPath(r.fd, ""), dir.fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	return unix.Linkat(r.fd, r.name, dir.fd, name, 0)
}

// Handle is the persistent file handle of the object: see [sys.FileHandle].
func (r Ref) Handle() (typ int32, handle []byte, err error) { return sys.FileHandle(r.fd, r.name) }
