package mounttest

import (
	"errors"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// union is what a check works on: a union, its layers on disk, and the means to say what must hold of them.
type union struct {
	testing.TB
	server  *Server
	spec    layer.Spec
	dir     string // where it is mounted
	mounted *Mount

	onUpper    string // the tree that upper holds from the start
	editsLower bool   // the check changes lower layers itself
	before     []string
	fds        map[int]bool
}

// distantFuture makes fingerprints tell all times.
var distantFuture = time.Unix(1<<40, 0)

// mount makes layers of the given trees, the topmost first, and mounts them below an upper layer.
func (u *union) mount(lowers ...string) {
	u.Helper()
	u.layers(lowers...)
	u.remount()
}

// mountReadOnly makes layers of the given trees and mounts them without an upper layer.
func (u *union) mountReadOnly(lowers ...string) {
	u.Helper()
	u.layers(lowers...)
	u.spec.Upper, u.spec.Work = "", ""
	u.remount()
}

func (u *union) layers(lowers ...string) {
	u.Helper()
	dirs := testfs.Layers(u, len(lowers)+3)
	u.dir, u.spec.Upper, u.spec.Work, u.spec.Lower = dirs[0], dirs[1], dirs[2], dirs[3:]
	testfs.Write(u, u.spec.Upper, u.onUpper)
	for i, text := range lowers {
		testfs.Write(u, u.spec.Lower[i], text)
		u.before = append(u.before, testfs.Fingerprint(u.spec.Lower[i], testfs.Options{Layer: true, Since: distantFuture}))
	}
}

// remount unmounts the union if it is mounted, and mounts it: all that was only remembered is gone.
func (u *union) remount() {
	u.Helper()
	u.unmount()
	u.mounted = u.server.Mount(u, u.spec, u.dir)
}

// unmount closes what is open of the union and unmounts it, if it is mounted.
func (u *union) unmount() {
	u.Helper()
	for fd := range u.fds {
		u.close(fd)
	}
	if u.mounted != nil {
		u.mounted.Unmount()
	}
}

// finish unmounts the union and checks what must hold after every check.
func (u *union) finish() {
	u.Helper()
	if u.mounted == nil {
		return
	}
	u.unmount()
	for i, before := range u.before {
		now := testfs.Fingerprint(u.spec.Lower[i], testfs.Options{Layer: true, Since: distantFuture})
		if d := testfs.Diff(before, now); d != "" && !u.editsLower {
			u.Errorf("lower layer %d was changed:\n%s", i, d)
		}
	}
	if u.spec.Work == "" {
		return
	}
	if u.server.options == "lazy=on" {
		for _, e := range testfs.Read(u.spec.Upper, testfs.Options{Layer: true}) {
			if strings.HasPrefix(e.Redirect, "unionfsd/") {
				u.Errorf("not filled: %s", e)
			}
		}
	}
	for _, e := range testfs.Read(u.spec.Work, testfs.Options{Layer: true}) {
		// The kernel keeps one whiteout there, to make links to. What is in the index is to stay.
		if e.Kind != testfs.Dir && e.Kind != testfs.Whiteout && (filepath.Dir(e.Path) != "index" || filepath.Base(e.Path)[0] == '#') {
			u.Errorf("left in work: %s", e)
		}
	}
}

// path is the path of name in the union; up and low are those in the upper and in the lower layer i.
func (u *union) path(name string) string {
	if u.dir == "." {
		return name // in [union.as], where a path may be as long as the kernel takes
	}
	return u.dir + "/" + name
}

func (u *union) up(name string) string         { return u.spec.Upper + "/" + name }
func (u *union) low(i int, name string) string { return u.spec.Lower[i] + "/" + name }

// ok ends the check if err is an error.
func (u *union) ok(err error) {
	u.Helper()
	if err != nil {
		u.Fatalf("error %v, want none", err)
	}
}

// fails ends the check if err is not want.
func (u *union) fails(want unix.Errno, err error) {
	u.Helper()
	if !errors.Is(err, want) {
		u.Fatalf("error %v, want %v (%s)", err, want, unix.ErrnoName(want))
	}
}

// equal ends the check if got is not want.
func equal[T comparable](u *union, got, want T) {
	u.Helper()
	if got != want {
		u.Fatalf("got %v, want %v", got, want)
	}
}

// merged compares the tree that the union shows with the tree want.
func (u *union) merged(want string) {
	u.Helper()
	u.compare("merged tree", u.dir, want, testfs.Options{})
}

// upper compares what the upper layer holds with the tree want. Of a union that is copied up lazily that is not told
// before it is unmounted; see finish.
func (u *union) upper(want string) {
	u.Helper()
	if strings.Contains(u.server.options, "lazy=") {
		return
	}
	u.compare("upper layer", u.spec.Upper, want, testfs.Options{Layer: true, UserXattr: u.spec.Options.UserXattr})
}

// compareLayer compares what a layer holds on disk with the tree want.
func (u *union) compareLayer(dir, want string) {
	u.Helper()
	u.compare("layer "+dir, dir, want, testfs.Options{Layer: true})
}

func (u *union) compare(what, dir, want string, o testfs.Options) {
	u.Helper()
	tree, err := testfs.Parse(want)
	if err != nil {
		u.Fatal(err)
	}
	for i := range tree {
		tree[i].MTime = time.Time{}
	}
	if d := testfs.Diff(tree.String(), testfs.Fingerprint(dir, o)); d != "" {
		u.Fatalf("%s is not as it should (-want +got):\n%s", what, d)
	}
}

// list is the names in a directory, sorted, without . and .. .
func (u *union) list(name string) string {
	u.Helper()
	fd := u.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer u.close(fd)
	return u.names(fd)
}

// names is list for an open directory, from where it stands.
func (u *union) names(fd int) string {
	u.Helper()
	list, err := testfs.ReadDir(fd)
	u.ok(err)
	var names []string
	for _, d := range list {
		if d.Name != "." && d.Name != ".." {
			names = append(names, d.Name)
		}
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

// tryOpen opens a file of the union; it is closed at the end, if not before.
func (u *union) tryOpen(name string, flags int, mode uint32) (int, error) {
	fd, err := unix.Open(u.path(name), flags|unix.O_CLOEXEC, mode)
	if err == nil {
		if u.fds == nil {
			u.fds = map[int]bool{}
		}
		u.fds[fd] = true
	}
	return fd, err
}

func (u *union) open(name string, flags int, mode uint32) int {
	u.Helper()
	fd, err := u.tryOpen(name, flags, mode)
	if err != nil {
		u.Fatalf("open %.100q: %v", name, err)
	}
	return fd
}

// openErr is the error of opening name.
func (u *union) openErr(name string, flags int, mode uint32) error {
	_, err := u.tryOpen(name, flags, mode)
	return err
}

func (u *union) close(fd int) {
	u.Helper()
	delete(u.fds, fd)
	if err := unix.Close(fd); err != nil {
		u.Errorf("close: %v", err)
	}
}

// read is the content of a file.
func (u *union) read(name string) string {
	u.Helper()
	fd := u.open(name, unix.O_RDONLY, 0)
	defer u.close(fd)
	return u.readFD(fd)
}

// readFD is what an open file holds, from its start.
func (u *union) readFD(fd int) string {
	u.Helper()
	var all []byte
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Pread(fd, b, int64(len(all)))
		u.ok(err)
		if n == 0 {
			return string(all)
		}
		all = append(all, b[:n]...)
	}
}

// write gives a file, new or not, the content data.
func (u *union) write(name, data string) {
	u.Helper()
	u.writeFlags(name, unix.O_CREAT|unix.O_TRUNC, data)
}

// append appends data to a file that exists.
func (u *union) append(name, data string) {
	u.Helper()
	u.writeFlags(name, unix.O_APPEND, data)
}

func (u *union) writeFlags(name string, flags int, data string) {
	u.Helper()
	fd := u.open(name, unix.O_WRONLY|flags, 0o644)
	defer u.close(fd)
	u.writeAt(fd, 0, data)
}

func (u *union) writeAt(fd int, off int64, data string) {
	u.Helper()
	n, err := unix.Pwrite(fd, []byte(data), off)
	u.ok(err)
	equal(u, n, len(data))
}

// stat is lstat.
func (u *union) stat(name string) unix.Stat_t {
	u.Helper()
	st, err := u.lstat(name)
	if err != nil {
		u.Fatalf("stat %q: %v", name, err)
	}
	return st
}

func (u *union) lstat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Lstat(u.path(name), &st)
	return st, err
}

func (u *union) fstat(fd int) unix.Stat_t {
	u.Helper()
	var st unix.Stat_t
	u.ok(unix.Fstat(fd, &st))
	return st
}

// missing ends the check if name is there.
func (u *union) missing(name string) {
	u.Helper()
	_, err := u.lstat(name)
	u.fails(unix.ENOENT, err)
}

// The operations by path, each with its error.

func (u *union) mkdir(name string) error           { return unix.Mkdir(u.path(name), 0o755) }
func (u *union) rmdir(name string) error           { return unix.Rmdir(u.path(name)) }
func (u *union) unlink(name string) error          { return unix.Unlink(u.path(name)) }
func (u *union) chmod(name string, m uint32) error { return unix.Chmod(u.path(name), m) }
func (u *union) truncate(name string, n int64) error {
	return unix.Truncate(u.path(name), n)
}
func (u *union) chown(name string, uid, gid int) error { return unix.Lchown(u.path(name), uid, gid) }
func (u *union) link(old, new string) error            { return unix.Link(u.path(old), u.path(new)) }
func (u *union) symlink(target, name string) error     { return unix.Symlink(target, u.path(name)) }
func (u *union) rename(old, new string) error          { return u.rename2(old, new, 0) }
func (u *union) rename2(old, new string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, u.path(old), unix.AT_FDCWD, u.path(new), flags)
}
func (u *union) mknod(name string, mode uint32, dev uint64) error {
	return unix.Mknod(u.path(name), mode, int(dev))
}
func (u *union) setxattr(name, attr, value string) error {
	return unix.Lsetxattr(u.path(name), attr, []byte(value), 0)
}
func (u *union) getxattr(name, attr string) (string, error) {
	return testfs.Getxattr(u.path(name), attr)
}
func (u *union) removexattr(name, attr string) error { return unix.Lremovexattr(u.path(name), attr) }
func (u *union) listxattr(name string) string {
	u.Helper()
	names, err := testfs.Listxattr(u.path(name))
	u.ok(err)
	return strings.Join(names, " ")
}
func (u *union) readlink(name string) string {
	u.Helper()
	b := make([]byte, 4096)
	n, err := unix.Readlink(u.path(name), b)
	u.ok(err)
	return string(b[:n])
}

// utimes sets both times, in seconds since 1970.
func (u *union) utimes(name string, sec int64) error {
	ts := unix.Timespec{Sec: sec}
	return unix.UtimesNanoAt(unix.AT_FDCWD, u.path(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// long is a name of n bytes.
func long(n int) string { return strings.Repeat("n", n) }

func join(names ...string) string { return filepath.Join(names...) }
