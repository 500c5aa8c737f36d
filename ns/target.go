package ns

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// makeTarget opens the place name in root to mount on: a directory, or a file. What is missing of it is made. Symbolic
// links are followed, as they are in a container: the absolute ones from root, and none leads out of it.
func makeTarget(root int, name string, dir bool) (int, error) {
	parent, err := openInside(root, "/")
	if err != nil {
		return -1, err
	}
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		prefix := "/" + strings.Join(parts[:i+1], "/")
		fd, err := openInside(root, prefix)
		if errors.Is(err, unix.ENOENT) {
			err = makeEntry(parent, part, dir || i < len(parts)-1)
			if err == nil {
				fd, err = openInside(root, prefix)
			} else {
				err = pathError("create", prefix, err)
			}
		}
		unix.Close(parent)
		if err != nil {
			return -1, err
		}
		parent = fd
	}
	var st unix.Stat_t
	if err := unix.Fstat(parent, &st); err != nil {
		unix.Close(parent)
		return -1, pathError("stat", name, err)
	}
	if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != dir {
		unix.Close(parent)
		if dir {
			return -1, pathError("open", name, unix.ENOTDIR)
		}
		return -1, pathError("open", name, unix.EISDIR)
	}
	return parent, nil
}

// openInside opens a path as a process with this root would, but that the links of /proc lead nowhere.
func openInside(root int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd := -1
	err := sys.Retry(func() (err error) {
		fd, err = unix.Openat2(root, name, &how)
		return err
	})
	return fd, pathError("open", name, err)
}

// makeEntry makes a directory or an empty file.
func makeEntry(parent int, name string, dir bool) error {
	if dir {
		return sys.Retry(func() error { return unix.Mkdirat(parent, name, 0o755) })
	}
	return sys.Retry(func() error { return unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0) })
}

// listDir returns the names in a directory, whose descriptor it closes.
func listDir(fd int) ([]string, error) {
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	return dir.Readdirnames(-1)
}
