package difftest

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

func setxattr(flags int) func(s *side, a []string) string {
	return func(s *side, a []string) string {
		return result(unix.Lsetxattr(s.path(a[0]), a[1], []byte(expand(a[2])), flags))
	}
}

// xattrArgs has no names that no file system takes: the kernel copies up before it finds out, FUSE never asks us.
func xattrArgs(g generator) []string {
	name := pick(g, g.xattr(), g.xattr(), g.xattr(), "trusted.overlay.opaque", "trusted.overlay.x")
	return []string{g.path(), name, fmt.Sprintf("%d*%c", g.Intn(60), 'a'+rune(g.Intn(26)))}
}

func pathXattr(g generator) []string { return xattrArgs(g)[:2] }

// attrKinds read and change attributes.
var attrKinds = []kind{
	{"stat", 5, true, onePath, func(s *side, a []string) string {
		var st unix.Stat_t
		if err := unix.Lstat(s.path(a[0]), &st); err != nil {
			return result(err)
		}
		return s.describe(&st)
	}},
	{"access", 2, true, func(g generator) []string { return []string{g.path(), fmt.Sprint(g.Intn(8))} }, func(s *side, a []string) string {
		return result(unix.Faccessat(unix.AT_FDCWD, s.path(a[0]), uint32(number(a[1], 10)), 0))
	}},
	{"chmod", 5, true, pathMode, func(s *side, a []string) string {
		return result(unix.Chmod(s.path(a[0]), uint32(number(a[1], 8))))
	}},
	{"chown", 4, true, func(g generator) []string {
		return []string{g.path(), pick(g, "0", "1000", "-1"), pick(g, "0", "1000", "1001", "-1")}
	}, func(s *side, a []string) string {
		return result(unix.Lchown(s.path(a[0]), number(a[1], 10), number(a[2], 10)))
	}},
	{"utimens", 3, true, func(g generator) []string {
		return []string{g.path(), fmt.Sprint(g.Intn(1500000000)), fmt.Sprint(pick(g, g.Intn(1e9), unix.UTIME_NOW, unix.UTIME_OMIT))}
	}, func(s *side, a []string) string {
		ts := unix.Timespec{Sec: int64(number(a[1], 10)), Nsec: int64(number(a[2], 10))}
		return result(unix.UtimesNanoAt(unix.AT_FDCWD, s.path(a[0]), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}},
	{"truncate", 4, true, func(g generator) []string { return []string{g.path(), g.offset()} }, func(s *side, a []string) string {
		return result(unix.Truncate(s.path(a[0]), int64(number(a[1], 10))))
	}},
	{"setxattr", 4, true, xattrArgs, setxattr(0)},
	{"setxattr-create", 1, false, xattrArgs, setxattr(unix.XATTR_CREATE)},
	{"setxattr-replace", 1, false, xattrArgs, setxattr(unix.XATTR_REPLACE)},
	{"getxattr", 2, true, pathXattr, func(s *side, a []string) string { return results(testfs.Getxattr(s.path(a[0]), a[1])) }},
	{"removexattr", 2, true, pathXattr, func(s *side, a []string) string { return result(unix.Lremovexattr(s.path(a[0]), a[1])) }},
	{"listxattr", 2, true, onePath, func(s *side, a []string) string {
		names, err := testfs.Listxattr(s.path(a[0]))
		return results(strings.Join(names, " "), err)
	}},
	{"fchmod", 2, true, func(g generator) []string { return []string{g.slot(), g.octal()} }, func(s *side, a []string) string {
		return result(unix.Fchmod(s.writableFD(a[0]), uint32(number(a[1], 8))))
	}},
	{"fstat", 3, false, oneSlot, func(s *side, a []string) string {
		var st unix.Stat_t
		if err := unix.Fstat(s.slotFD(a[0]), &st); err != nil {
			return result(err)
		}
		return s.describe(&st)
	}},
	{"same-inode", 2, false, twoPaths, func(s *side, a []string) string {
		var st, other unix.Stat_t
		if err := errors.Join(unix.Lstat(s.path(a[0]), &st), unix.Lstat(s.path(a[1]), &other)); err != nil {
			return "no two objects"
		}
		return fmt.Sprint(st.Ino == other.Ino)
	}},
	{"open-inode", 2, false, func(g generator) []string { return []string{g.slot(), g.path()} }, func(s *side, a []string) string {
		var st, other unix.Stat_t
		if err := errors.Join(unix.Fstat(s.slotFD(a[0]), &st), unix.Lstat(s.path(a[1]), &other)); err != nil {
			return "no two objects"
		}
		return fmt.Sprint(st.Ino == other.Ino)
	}},
}
