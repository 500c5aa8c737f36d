package layer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Layer is one directory tree of a union.
type Layer struct {
	Path string // as the user named it, for messages
	Root *Dir
	Dev  uint64 // st_dev of the root
	Pos  int    // index among the lower layers, the topmost 0, data-only ones last; -1 for the upper layer
	FSID int    // index of Dev among the file systems of the union's layers; the upper layer's is 0

	// Local says that whatever changes the layer is done by this kernel, which can tell of it. Of network file systems
	// that is not so, nor of those that show what is elsewhere.
	Local bool

	budget *budget
}

// openLower opens a lower layer on a read-only clone of its mount. Where a mount cannot be cloned, for lack of
// privilege or of the system call, the directory is used as it is: openat2 then keeps lookups from crossing mounts,
// and nothing in this module opens a lower file for writing.
func openLower(path string, b *budget) (*Layer, error) {
	fd, err := openRoot("lower layer", path)
	if err != nil {
		return nil, err
	}
	if clone, err := sys.CloneMount(fd, true); err == nil {
		unix.Close(fd)
		fd = clone
	}
	return newLayer(path, fd, b)
}

// openUpper opens the upper layer or the work directory. See makePrivate for what becomes of their mount.
func openUpper(what, path string, b *budget) (*Layer, error) {
	fd, err := openRoot(what, path)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("%s %q is on a file system that is mounted read-only: remount it read-write or choose another directory", what, path)
	}
	return newLayer(path, fd, b)
}

func newLayer(path string, fd int, b *budget) (*Layer, error) {
	l := &Layer{Path: path, budget: b}
	l.Root = newRoot(fd, l)
	var st unix.Stat_t
	if err := l.Root.Self().Stat(&st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat %q: %w", path, err)
	}
	l.Dev = st.Dev
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil {
		l.Local = localFileSystems[int64(fs.Type)]
	}
	return l, nil
}

// localFileSystems are those whose files nobody changes but through this kernel, by their numbers in statfs(2).
var localFileSystems = map[int64]bool{
	unix.BTRFS_SUPER_MAGIC:    true,
	unix.EROFS_SUPER_MAGIC_V1: true,
	unix.EXT4_SUPER_MAGIC:     true, // and ext2, ext3
	unix.F2FS_SUPER_MAGIC:     true,
	unix.ISOFS_SUPER_MAGIC:    true,
	unix.RAMFS_MAGIC:          true,
	unix.SQUASHFS_MAGIC:       true,
	unix.TMPFS_MAGIC:          true,
	unix.XFS_SUPER_MAGIC:      true,
	0x2fc12fc1:                true, // ZFS
	0xca451a4e:                true, // bcachefs
}

// openRoot opens the directory at path, following symbolic links, as O_PATH, after a check that it can be read.
func openRoot(what, path string) (int, error) {
	probe, err := sys.Openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, openRootError(what, path, err)
	}
	defer unix.Close(probe)
	fd, err := sys.Openat(unix.AT_FDCWD, sys.ProcPath(probe, ""), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, openRootError(what, path, err)
	}
	return fd, nil
}

func openRootError(what, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s %q does not exist: create it or correct the path", what, path)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s %q is not a directory: name a directory", what, path)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s %q cannot be read: run as its owner or as root, or give read and search permission", what, path)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%s %q: too many open files: raise the limit (ulimit -n)", what, path)
	default:
		return fmt.Errorf("open %s %q: %w", what, path, err)
	}
}
