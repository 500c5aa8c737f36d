package difftest

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// kind is one kind of operation: how often it comes, how its arguments are made, and what it does.
type kind struct {
	name   string
	weight int
	asUser bool // it is sometimes done as a user without privileges
	args   func(g generator) []string
	do     func(s *side, a []string) string
}

func kindNamed(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

// Makers of arguments.

func none(generator) []string      { return nil }
func onePath(g generator) []string { return []string{g.path()} }
func twoPaths(g generator) []string {
	return []string{g.path(), g.path()}
}
func pathMode(g generator) []string { return []string{g.path(), g.octal()} }
func oneSlot(g generator) []string  { return []string{g.slot()} }

// kinds is filled by init, since do and kinds refer to each other.
var kinds []kind

func init() {
	kinds = append(kinds, nameKinds...)
	kinds = append(kinds, attrKinds...)
	kinds = append(kinds, dataKinds...)
}

func rename(flags uint) func(s *side, a []string) string {
	return func(s *side, a []string) string {
		err := unix.Renameat2(unix.AT_FDCWD, s.path(a[0]), unix.AT_FDCWD, s.path(a[1]), flags)
		if err == unix.ENOTEMPTY {
			// The kernel may find that late, when it has changed the time of a directory.
			for _, name := range a {
				_ = unix.UtimesNanoAt(unix.AT_FDCWD, s.path(path.Dir(name)), nil, unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		return result(err)
	}
}

// mknod makes an object of a type, with the permissions that are the second argument.
func mknod(typ uint32, major, minor uint32) func(s *side, a []string) string {
	return func(s *side, a []string) string {
		return result(unix.Mknod(s.path(a[0]), typ|uint32(number(a[1], 8)), int(unix.Mkdev(major, minor))))
	}
}

// nameKinds make, remove, move and list names.
var nameKinds = []kind{
	{"create", 8, true, pathMode, func(s *side, a []string) string {
		fd, err := unix.Open(s.path(a[0]), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, uint32(number(a[1], 8)))
		if err == nil {
			err = unix.Close(fd)
		}
		return result(err)
	}},
	{"mkdir", 8, true, pathMode, func(s *side, a []string) string {
		return result(unix.Mkdir(s.path(a[0]), uint32(number(a[1], 8))))
	}},
	{"symlink", 2, true, func(g generator) []string { return []string{g.target(), g.path()} }, func(s *side, a []string) string {
		return result(unix.Symlink(a[0], s.path(a[1])))
	}},
	{"link", 5, true, twoPaths, func(s *side, a []string) string { return result(unix.Link(s.path(a[0]), s.path(a[1]))) }},
	{"mkfifo", 1, true, pathMode, mknod(unix.S_IFIFO, 0, 0)},
	{"mksock", 1, true, pathMode, mknod(unix.S_IFSOCK, 0, 0)},
	{"mkdev", 1, true, pathMode, mknod(unix.S_IFCHR, 1, 3)},
	{"mkwhiteout", 1, true, pathMode, mknod(unix.S_IFCHR, 0, 0)},
	{"unlink", 8, true, onePath, func(s *side, a []string) string { return result(unix.Unlink(s.path(a[0]))) }},
	{"rmdir", 8, true, onePath, func(s *side, a []string) string { return result(unix.Rmdir(s.path(a[0]))) }},
	{"clear", 3, false, onePath, clearDir},
	{"rename", 8, true, twoPaths, rename(0)},
	{"rename-noreplace", 3, true, twoPaths, rename(unix.RENAME_NOREPLACE)},
	{"rename-exchange", 4, true, twoPaths, rename(unix.RENAME_EXCHANGE)},
	{"rename-whiteout", 1, false, twoPaths, rename(unix.RENAME_WHITEOUT)},
	{"tmpfile", 3, true, func(g generator) []string { return []string{pick(g, ".", g.path()), g.octal(), g.data(), g.path()} }, tmpfile},
	{"readdir", 5, true, func(g generator) []string { return []string{pick(g, ".", g.path())} }, func(s *side, a []string) string {
		fd, err := unix.Open(s.path(a[0]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return result(err)
		}
		defer unix.Close(fd)
		return readdir(fd)
	}},
	{"readlink", 2, true, onePath, func(s *side, a []string) string {
		b := make([]byte, 4096)
		n, err := unix.Readlink(s.path(a[0]), b)
		return results(string(b[:max(n, 0)]), err)
	}},
	{"tree", 1, false, none, func(s *side, _ []string) string { return s.merged() }},
	{"remount", 1, false, none, func(s *side, _ []string) string {
		s.unmount()
		s.mount()
		return "ok"
	}},
}

// clearDir removes what is in a directory, as long as that is no directory, so that directories that are merged and
// have whiteouts only come often.
func clearDir(s *side, a []string) string {
	fd, err := unix.Open(s.path(a[0]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return result(err)
	}
	defer unix.Close(fd)
	list, err := testfs.ReadDir(fd)
	if err != nil {
		return result(err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	var out []string
	for _, d := range list {
		if d.Name != "." && d.Name != ".." {
			out = append(out, d.Name+" "+result(unix.Unlinkat(fd, d.Name, 0)))
		}
	}
	return strings.Join(out, ", ")
}

// tmpfile makes a file without a name, writes it, and gives it one.
func tmpfile(s *side, a []string) string {
	fd, err := unix.Open(s.path(a[0]), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(number(a[1], 8)))
	if err != nil {
		return result(err)
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, []byte(expand(a[2])), 0)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "fstat " + result(err)
	}
	return fmt.Sprint(n, " ", result(err), " ", s.describe(&st), " link ",
		result(unix.Linkat(unix.AT_FDCWD, s.proc(fd), unix.AT_FDCWD, s.path(a[3]), unix.AT_SYMLINK_FOLLOW)))
}

// readdir is the names and types in an open directory.
func readdir(fd int) string {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return "seek " + result(err)
	}
	list, err := testfs.ReadDir(fd)
	if err != nil {
		return result(err)
	}
	var names []string
	for _, d := range list {
		names = append(names, fmt.Sprintf("%q:%d", d.Name, d.Type))
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}
