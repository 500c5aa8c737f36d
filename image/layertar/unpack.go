package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Limits bound what an archive may ask for. Zero is no limit.
type Limits struct {
	Bytes   int64 // of all files together, and of the archive
	Entries int64
}

// Options say how to unpack.
type Options struct {
	Xattr  layer.XattrNames // the names of overlayfs's marks
	Plain  bool             // no layer: attributes keep their names, and Xattr is not used
	Limits Limits

	// Rootless leaves out what a user namespace cannot have, and counts it: owners that are not mapped, devices.
	Rootless bool
}

// Contents is what a layer was found to hold.
type Contents struct {
	Entries int64 `json:"entries"` // objects, whiteouts included
	Bytes   int64 `json:"bytes"`   // in files

	// Root says that the archive has an entry for the root directory.
	Root bool `json:"root,omitempty"`

	// Implied are the directories, from the root of the layer, that have something in them and no entry of their own.
	// They are made, with mode 0755; those of the layers below may have other owners and modes.
	Implied []string `json:"implied,omitempty"`

	// Foreign are hard links to what this layer does not have. They are not made.
	Foreign []Link `json:"foreign,omitempty"`

	// What could not be kept: with Options.Rootless, and attributes that the file system does not know.
	LostOwners  int64 `json:"lost_owners,omitempty"`
	LostDevices int64 `json:"lost_devices,omitempty"`
	LostXattrs  int64 `json:"lost_xattrs,omitempty"`
}

// Link is a hard link, both paths from the root of the layer.
type Link struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// Unpack makes what the archive r holds in the directory root, an open descriptor of an empty directory that nobody else
// changes meanwhile. After an error root holds part of it.
func Unpack(ctx context.Context, root int, r io.Reader, o Options) (Contents, error) {
	u := &unpacker{Options: o, root: root, dir: -1, implied: map[string]bool{}, foreign: map[string]string{},
		times: map[string]unix.Timespec{}, acls: map[string]string{}, buf: make([]byte, 256<<10),
		uid: os.Geteuid(), gid: os.Getegid(), umask: umask()}
	defer u.forget()
	if err := u.all(ctx, r); err != nil {
		return Contents{}, err
	}
	if err := u.finish(); err != nil {
		return Contents{}, err
	}
	u.Implied = slices.Sorted(maps.Keys(u.implied))
	for _, name := range slices.Sorted(maps.Keys(u.foreign)) {
		u.Foreign = append(u.Foreign, Link{name, u.foreign[name]})
	}
	return u.Contents, nil
}

type unpacker struct {
	Options
	Contents
	root int

	dir     int // the directory of the last entry, kept open since the next one is likely to be there, too; -1: none
	dirName string
	dirPath string // what dirName is without symbolic links

	implied map[string]bool
	foreign map[string]string        // hard links to other layers, and what to
	opaque  []string                 // directories
	hidden  []string                 // whiteouts
	times   map[string]unix.Timespec // of directories, set when all is in them
	acls    map[string]string        // for what is made in directories, set with the times
	buf     []byte

	// What an object has that is made: owner and group, unless the directory of the last entry hands on its own, and its mode
	// without these bits.
	uid, gid int
	inherits bool
	umask    uint32
}

// umask is that of the process. To ask for it by umask(2) would change it for a moment.
func umask() uint32 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	_, after, _ := strings.Cut(string(text), "\nUmask:\t")
	line, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(line, 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(mask)
}

func (u *unpacker) all(ctx context.Context, r io.Reader) error {
	var read io.Reader = r
	if u.Limits.Bytes > 0 {
		read = &limited{r: r, left: u.Limits.Bytes}
	}
	archive := tar.NewReader(read)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if u.Entries++; u.Limits.Entries > 0 && u.Entries > u.Limits.Entries {
			return fmt.Errorf("more than %d entries: raise the limit (--max-entries) if you trust the archive", u.Limits.Entries)
		}
		if err := u.entry(h, archive); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

// errTooLarge is about an archive that is larger than the limit.
var errTooLarge = errors.New("the layer is larger than the limit: raise it (--max-layer-size) if you trust the archive")

// limited is r up to a limit, at which it fails.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

func (u *unpacker) entry(h *tar.Header, data io.Reader) error {
	dir, base, m, err := parse(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader || m == markAUFS {
		return nil
	}
	if m != markNone && h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink { // a link: AUFS's whiteouts share one inode
		return errWhiteout
	}
	fd, dir, err := u.parent(dir)
	if err != nil {
		return err
	}
	switch {
	case m == markOpaque:
		return u.makeOpaque(fd, dir)
	case m == markHides:
		return u.hide(fd, dir, base)
	case base == "":
		return u.describeRoot(h)
	}
	return u.object(fd, dir, base, h, data)
}

// describeRoot gives the root of the layer what the archive says of it.
func (u *unpacker) describeRoot(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errors.New("the root of a layer is a directory")
	}
	u.Root = true
	u.times[""] = mtime(h)
	u.forget() // what is made in it may inherit from it now
	return u.describe(u.root, "", ".", h, false)
}

// makeOpaque makes the directory hide what is below. Entries of this layer it does not hide, wherever they stand in
// the archive.
func (u *unpacker) makeOpaque(fd int, dir string) error {
	u.opaque = append(u.opaque, dir)
	return whiteout.SetOpaque(layer.RefFD(fd), u.Xattr, false)
}

// hide makes a whiteout. If this layer has something of the name, that hides what is below by itself, a directory once
// it is opaque.
func (u *unpacker) hide(fd int, dir, base string) error {
	if _, has := u.foreign[join(dir, base)]; has {
		return nil
	}
	err := sys.Mknodat(fd, base, unix.S_IFCHR, 0)
	switch err {
	case nil:
		u.hidden = append(u.hidden, join(dir, base))
		return nil
	case unix.EEXIST:
	default:
		return err
	}
	sub, err := sys.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	return u.makeOpaque(sub, join(dir, base))
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// parent returns a descriptor of the directory at path, which is made if the archive has told nothing of it, and its path
// without symbolic links. It is good until the next call.
func (u *unpacker) parent(path string) (int, string, error) {
	if u.dir >= 0 && u.dirName == path {
		return u.dir, u.dirPath, nil
	}
	u.forget()
	fd, real, err := u.open(path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		fd, real, err = u.imply(path)
	}
	if err != nil {
		return -1, "", fmt.Errorf("open its directory %q: %w", path, err)
	}
	u.dir, u.dirName, u.dirPath = fd, path, real
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, "", err
	}
	u.inherits = st.Mode&unix.S_ISGID != 0 || int(st.Gid) != u.gid // the latter with the mount option grpid
	return fd, real, nil
}

func (u *unpacker) forget() {
	if u.dir >= 0 {
		unix.Close(u.dir)
		u.dir = -1
	}
}

// open opens a directory of the layer and returns its path without symbolic links, which lead to where they would with
// the layer as root.
func (u *unpacker) open(path string) (fd int, real string, err error) {
	at := path
	if path == "" {
		at = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if fd, err = sys.Openat2(u.root, at, &how); err != unix.ELOOP {
		return fd, path, err
	}
	how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	if fd, err = sys.Openat2(u.root, at, &how); err != nil {
		return -1, "", err
	}
	if real, err = u.pathOf(fd); err != nil {
		unix.Close(fd)
	}
	return fd, real, err
}

// pathOf returns the path, from the root of the layer, of an open directory in it.
func (u *unpacker) pathOf(fd int) (string, error) {
	root, err := os.Readlink(sys.ProcPath(u.root, ""))
	if err != nil {
		return "", bare(err)
	}
	path, err := os.Readlink(sys.ProcPath(fd, ""))
	if err != nil {
		return "", bare(err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), nil
}

// imply makes the directory at path and those above it, as far as they are missing. Where this layer has a whiteout, the
// directory takes its place and hides what is below.
func (u *unpacker) imply(path string) (fd int, real string, err error) {
	above, base := split(path)
	parent, dir, err := u.open(above)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		parent, dir, err = u.imply(above)
	}
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(parent)
	real = join(dir, base)
	err = sys.Mkdirat(parent, base, 0o755)
	covers := false
	if err == unix.EEXIST {
		if covers, err = u.uncover(parent, base); err == nil && !covers {
			err = unix.ENOTDIR
		}
		if err == nil {
			err = sys.Mkdirat(parent, base, 0o755)
		}
	}
	if err == nil {
		err = sys.Fchmodat(parent, base, 0o755) // whatever the umask
	}
	if err != nil {
		return -1, "", err
	}
	if fd, _, err = u.open(real); err != nil {
		return -1, "", err
	}
	if !covers {
		u.implied[real] = true
		return fd, real, nil
	}
	if err := u.makeOpaque(fd, real); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, real, nil
}

// uncover removes what is at base if it is a whiteout, and reports whether it was.
func (u *unpacker) uncover(parent int, base string) (bool, error) {
	var st unix.Stat_t
	if err := sys.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if !whiteout.Is(&st) {
		return false, nil
	}
	return true, sys.Unlinkat(parent, base, 0)
}

// finish does what can be done only when all entries are there.
func (u *unpacker) finish() error {
	u.forget()
	if err := u.dropUseless(); err != nil {
		return err
	}
	for path, acl := range u.acls {
		if err := u.finishDir(path, func(fd int) error { return u.setxattr(fd, ".", aclDefault, acl) }); err != nil {
			return fmt.Errorf("ACL of directory %q: %w", path, err)
		}
	}
	for path, t := range u.times {
		err := u.finishDir(path, func(fd int) error { return sys.Utimensat(fd, ".", &[2]unix.Timespec{t, t}, 0) })
		if err != nil {
			return fmt.Errorf("time of directory %q: %w", path, err)
		}
	}
	return nil
}

// finishDir calls f with a directory, if no later entry has taken its place.
func (u *unpacker) finishDir(path string, f func(fd int) error) error {
	fd, _, err := u.open(path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// dropUseless removes the whiteouts in opaque directories: there is nothing for them to hide, and the kernel would list
// them, as it does in every directory that it does not merge.
func (u *unpacker) dropUseless() error {
	if len(u.opaque) == 0 || len(u.hidden) == 0 {
		return nil
	}
	opaque := make(map[string]bool, len(u.opaque))
	for _, dir := range u.opaque {
		opaque[dir] = true
	}
	for _, path := range u.hidden {
		dir, base := split(path)
		if !inside(opaque, dir) {
			continue
		}
		fd, _, err := u.open(dir)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err == nil {
			if _, err = u.uncover(fd, base); err == unix.ENOENT {
				err = nil
			}
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("whiteout %q: %w", path, err)
		}
	}
	return nil
}

// inside reports whether path or a directory above it is in the set.
func inside(set map[string]bool, path string) bool {
	for ; ; path, _ = split(path) {
		if set[path] {
			return true
		}
		if path == "" {
			return false
		}
	}
}

func split(path string) (dir, base string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
