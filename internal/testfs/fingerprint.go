package testfs

import (
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what [Fingerprint] tells of a tree besides names, types, modes, owners, content, links and xattrs.
type Options struct {
	// Layer says that the tree is a layer on disk: whiteouts and the marks of directories are told as such, and
	// what else overlayfs keeps in xattrs (origin, impure, nlink, uuid), which may differ between equal layers,
	// is left out.
	Layer bool

	// UserXattr says that the marks of the layer are user.overlay.*, not trusted.overlay.*.
	UserXattr bool

	// Since, where it is not zero, adds the time of modification: itself if it is before Since, else "new".
	Since time.Time
}

// Fingerprint reads the tree dir and returns its canonical text, see [Tree]. What cannot be read is in it as a
// "broken" line: a fingerprint never fails.
func Fingerprint(dir string, o Options) string { return Read(dir, o).String() }

// Canonical is the canonical form of the text of a tree: what Fingerprint gives of it once it is written.
func Canonical(text string) (string, error) {
	t, err := Parse(text)
	return t.String(), err
}

// Read reads the tree dir.
func Read(dir string, o Options) Tree {
	r := reader{Options: o, seen: map[[2]uint64]string{}}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.broken(".", "open", err)
		return r.tree
	}
	defer unix.Close(fd)
	r.object(fd, ".", ".", unix.DT_DIR)
	r.dir(fd, ".")
	return r.tree
}

type reader struct {
	Options
	tree Tree
	seen map[[2]uint64]string // (device, inode) of what has several names: the first of them
}

func (r *reader) broken(path, what string, err error) {
	r.tree = append(r.tree, Entry{Kind: Broken, Path: path, Target: what + ": " + err.Error()})
}

// dir adds the children of the open directory fd. It goes down by descriptors, so that no path is too long.
func (r *reader) dir(fd int, dir string) {
	list, err := ReadDir(fd)
	if err != nil {
		r.broken(dir, "readdir", err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	for i, d := range list {
		if d.Name == "." || d.Name == ".." {
			continue
		}
		if i > 0 && d.Name == list[i-1].Name {
			r.broken(path.Join(dir, d.Name), "readdir", fmt.Errorf("listed twice"))
		}
		r.object(fd, d.Name, path.Join(dir, d.Name), d.Type)
	}
}

// object adds the object name of the directory dirfd, and what is below it. dtype is the type in the listing.
func (r *reader) object(dirfd int, name, full string, dtype uint8) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.broken(full, "stat", err)
		return
	}
	if dtype != unix.DT_UNKNOWN && uint32(dtype) != st.Mode&unix.S_IFMT>>12 {
		r.broken(full, "readdir", fmt.Errorf("type %d where stat has mode %o", dtype, st.Mode))
	}
	e := Entry{Path: full, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Xattrs: map[string]string{}}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		whiteout := r.Layer && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		if first, ok := r.seen[id]; ok && !whiteout {
			r.tree = append(r.tree, Entry{Kind: Hardlink, Path: full, Target: first})
			return
		}
		r.seen[id] = full
		e.Nlink = uint64(st.Nlink) // 32 bits on arm64
	}
	if !r.Since.IsZero() {
		e.MTime = time.Unix(st.Mtim.Unix())
		e.New = !e.MTime.Before(r.Since)
	}
	var fd = -1
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind = Dir
		if full != "." {
			if fd, err = unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
				r.broken(full, "open", err)
			} else {
				defer unix.Close(fd)
			}
		}
	case unix.S_IFREG:
		e.Kind, e.Size = File, st.Size
		err = e.readFile(dirfd, name)
	case unix.S_IFLNK:
		e.Kind = Symlink
		e.Target, err = readlinkat(dirfd, name)
	case unix.S_IFIFO:
		e.Kind = Fifo
	case unix.S_IFSOCK:
		e.Kind = Socket
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind, e.Major, e.Minor = Block, unix.Major(st.Rdev), unix.Minor(st.Rdev)
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			e.Kind = Char
		}
		if r.Layer && e.Kind == Char && st.Rdev == 0 {
			e.Kind = Whiteout
		}
	}
	if err != nil {
		r.broken(full, "read", err)
	}
	if err := r.xattrs(&e, dirfd, name); err != nil {
		r.broken(full, "xattrs", err)
	}
	r.tree = append(r.tree, e)
	if fd >= 0 {
		r.dir(fd, full)
	}
}

// readFile reads the content of a file: itself if it is short, else its hash.
func (e *Entry) readFile(dirfd int, name string) error {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if int64(len(b)) != e.Size {
		return fmt.Errorf("%d bytes where stat says %d", len(b), e.Size)
	}
	if len(b) > shown {
		e.Sum = sum(b)
	} else {
		e.Data = []Extent{{0, string(b)}}
	}
	return nil
}

func readlinkat(dirfd int, name string) (string, error) {
	b := make([]byte, 4096)
	n, err := unix.Readlinkat(dirfd, name, b)
	return string(b[:max(n, 0)]), err
}

// xattrs reads the xattrs of one object. The path through /proc leads to the object itself, whatever its type.
func (r *reader) xattrs(e *Entry, dirfd int, name string) error {
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
	names, err := Listxattr(at)
	if err != nil {
		return err
	}
	for _, x := range names {
		v, err := Getxattr(at, x)
		if err != nil {
			return fmt.Errorf("%s: %w", x, err)
		}
		if r.Layer && r.mark(e, x, v) {
			continue
		}
		e.Xattrs[x] = v
	}
	return nil
}

// mark takes the xattr name=value of an object in a layer as what it means for a union, and reports whether it is
// one of overlayfs's own.
func (r *reader) mark(e *Entry, name, value string) bool {
	prefix := "trusted.overlay."
	if r.UserXattr {
		prefix = "user.overlay."
	}
	own, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	switch own {
	case "opaque":
		e.Opaque = value
	case "redirect":
		e.Redirect = value
	case "metacopy":
		e.Metacopy = true
	case "origin", "impure", "nlink", "uuid", "upper":
	default:
		return false // protattr, whiteout, and what users wrote, escaped
	}
	return true
}

// Listxattr returns the names of the xattrs of path, which is not followed, sorted.
func Listxattr(path string) ([]string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if err != nil || n == 0 {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	sort.Strings(names)
	return names, nil
}

// Getxattr returns one xattr of path, which is not followed.
func Getxattr(path, name string) (string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, name, b)
	return string(b[:max(n, 0)]), err
}
