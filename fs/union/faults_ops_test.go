package union_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// steps are states on the way of an operation, each by what leads to it.
type steps []func(dir string) error

// operation is one change of a union. Done again after it failed, it must succeed.
type operation struct {
	name    string
	options layer.Options
	prepare func(dir string) error // done before, through the union
	do      func(dir string) error

	between steps  // what a failure may leave: a copy-up that shows, a copy that was cut short
	deny    string // a system call that the file system of the layers does not have
	early   bool   // the copy-up makes the change, so that what comes after it may fail

	noChange bool // it changes nothing that the union shows
}

// faultLayers are the lower layers of all operations, made once.
func faultLayers(t testing.TB) []string {
	t.Helper()
	dirs := testfs.Layers(t, 2)
	for i, text := range []string{`
		file a "a" user.x="1"
		file b "b"
		dir acl mode=2775 owner=0:50
		file acl/gone
		file big size=98304 data=16384:"data" data=65536:"more"
		file both "top"
		dir d mode=0750 owner=10:20 user.d="d"
		file d/f "lower" mode=4750 owner=10:20 user.x="1" user.y="2"
		dir d/sub
		file d/sub/x
		dir deep
		dir deep/1
		dir deep/1/2
		file deep/1/2/f "deep"
		dir emptied
		file emptied/x
		file emptied/y
		dir empty
		file gone
		dir gonedir
		file gonedir/x
		file h1 "links"
		hardlink h2 -> h1
		symlink link -> d/f
		dir m
		file m/top
		char null 1:3
		file over "lower"
		dir over.d
		file over.d/low
		fifo pipe
		dir sgid mode=2777 owner=0:50`, `
		file both "bottom"
		dir d
		file d/h
		dir m
		file m/bottom
		dir m/n
		file m/n/x "x"`,
	} {
		if err := parseOld(t, text).Write(dirs[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(dirs[0]+"/acl", "system.posix_acl_default", defaultACL(), 0); err != nil {
		testfs.Skip(t, "ACL: %v", err)
	}
	return dirs
}

// faultUpper is what the upper layer of all operations has from the start.
const faultUpper = `
	dir acl mode=2775 owner=0:50
	whiteout acl/gone
	dir emptied
	whiteout emptied/x
	whiteout emptied/y
	whiteout gone
	whiteout gonedir
	file over "upper"
	dir over.d
	whiteout over.d/low
	dir pure
	file pure/y
	dir pure.empty
	file up "up"`

// defaultACL is an ACL with one entry beyond the mode: user 1 may write (struct posix_acl_xattr_header and _entry).
func defaultACL() []byte {
	const undefined = ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, undefined}, {2, 6, 1}, {4, 5, undefined}, {16, 7, undefined}, {32, 0, undefined}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// The ways to say what an operation does, with names relative to the union.

func chmod(name string, mode uint32) func(string) error {
	return func(dir string) error { return unix.Chmod(dir+"/"+name, mode) }
}

func chown(name string, uid, gid int) func(string) error {
	return func(dir string) error { return unix.Lchown(dir+"/"+name, uid, gid) }
}

func utimes(name string) func(string) error {
	ts := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
	return func(dir string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/"+name, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func touch(name string) func(string) error {
	return func(dir string) error { return unix.UtimesNano(dir+"/"+name, nil) }
}

func truncate(name string, size int64) func(string) error {
	return func(dir string) error { return unix.Truncate(dir+"/"+name, size) }
}

func setxattr(name, attr string, value []byte) func(string) error {
	return func(dir string) error { return unix.Lsetxattr(dir+"/"+name, attr, value, 0) }
}

func removexattr(name, attr string) func(string) error {
	return func(dir string) error { return unix.Lremovexattr(dir+"/"+name, attr) }
}

func unlink(name string) func(string) error {
	return func(dir string) error { return unix.Unlink(dir + "/" + name) }
}

func rmdir(name string) func(string) error {
	return func(dir string) error { return unix.Rmdir(dir + "/" + name) }
}

func mkdir(name string) func(string) error {
	return func(dir string) error { return unix.Mkdir(dir+"/"+name, 0o750) }
}

func mknod(name string, mode uint32, dev uint64) func(string) error {
	return func(dir string) error { return unix.Mknod(dir+"/"+name, mode, int(dev)) }
}

func symlink(target, name string) func(string) error {
	return func(dir string) error { return unix.Symlink(target, dir+"/"+name) }
}

func link(old, name string) func(string) error {
	return func(dir string) error { return unix.Link(dir+"/"+old, dir+"/"+name) }
}

func rename(old, name string) func(string) error { return rename2(old, name, 0) }

func rename2(old, name string, flags uint) func(string) error {
	return func(dir string) error {
		return unix.Renameat2(unix.AT_FDCWD, dir+"/"+old, unix.AT_FDCWD, dir+"/"+name, flags)
	}
}

// openFile opens a file and does something with it.
func openFile(name string, flags int, then func(fd int) error) func(string) error {
	return func(dir string) error {
		fd, err := unix.Open(dir+"/"+name, flags|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if then == nil {
			return nil
		}
		return then(fd)
	}
}

func write(data string) func(fd int) error {
	return func(fd int) error {
		_, err := unix.Pwrite(fd, []byte(data), 1)
		return err
	}
}

func resize(size int64) func(fd int) error {
	return func(fd int) error { return unix.Ftruncate(fd, size) }
}

// inTurn does one thing after the other, up to the first that fails.
func inTurn(things ...func(fd int) error) func(fd int) error {
	return func(fd int) error {
		for _, do := range things {
			if err := do(fd); err != nil {
				return err
			}
		}
		return nil
	}
}

// someData writes to a file that is copied up lazily.
var someData = openFile("big", unix.O_RDWR, write("x"))

var (
	redirects = layer.Options{RedirectDir: layer.RedirectOn}
	metacopy  = layer.Options{RedirectDir: layer.RedirectOn, Metacopy: true}
	indexed   = layer.Options{Index: true}
	lazy      = layer.Options{FUSE: layer.FUSEOptions{Lazy: layer.LazyOn}}
	aufs      = layer.Options{FUSE: layer.FUSEOptions{AUFSMarks: true}}
)

const (
	exchange  = unix.RENAME_EXCHANGE
	noReplace = unix.RENAME_NOREPLACE
	creating  = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
)

// operations is the table. In the names, "new" has nothing of the name, "whiteout" is over something lower.
var operations = []operation{
	{name: "open lower for writing", do: openFile("d/f", unix.O_RDWR, nil), noChange: true},
	{name: "open lower for appending and write", do: openFile("d/f", unix.O_WRONLY|unix.O_APPEND, write("more"))},
	{name: "open lower of extents", do: openFile("big", unix.O_WRONLY, write("more"))},
	{name: "open and truncate lower", do: openFile("d/f", unix.O_WRONLY|unix.O_TRUNC, nil), early: true},
	{name: "open and truncate upper", do: openFile("over", unix.O_WRONLY|unix.O_TRUNC, nil)},
	{name: "truncate lower", do: truncate("d/f", 3)},
	{name: "truncate lower to nothing", do: truncate("big", 0), early: true},
	{name: "fallocate lower", do: openFile("a", unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 4096) })},

	{name: "chmod lower file", do: chmod("d/f", 0o600)},
	{name: "chmod lower directory", do: chmod("d/sub", 0o700)},
	{name: "chmod merged directory", do: chmod("m", 0o700)},
	{name: "chmod of several links", do: chmod("h1", 0o600), between: steps{openFile("h1", unix.O_WRONLY, nil)}},
	{name: "chmod deep", do: chmod("deep/1/2/f", 0o600)},
	{name: "chown lower link", do: chown("link", 1, 2)},
	{name: "chown lower file", do: chown("d/f", 1, 2)},
	{name: "utimes of lower FIFO", do: utimes("pipe")},
	{name: "utimes of lower device", do: utimes("null")},
	{name: "setxattr lower", do: setxattr("d/f", "user.new", []byte("value"))},
	{name: "setxattr lower directory", do: setxattr("d", "trusted.new", []byte("value"))},
	{name: "set ACL lower", do: setxattr("d/sub", "system.posix_acl_access", defaultACL())},
	{name: "removexattr lower", do: removexattr("d/f", "user.x")},

	{name: "unlink upper", do: unlink("up")},
	{name: "unlink lower", do: unlink("a")},
	{name: "unlink in lower directory", do: unlink("d/f")},
	{name: "unlink merged", do: unlink("over")},
	{name: "unlink in both lower", do: unlink("both")},
	{name: "unlink one of several links", do: unlink("h1")},
	{name: "unlink copied up", prepare: chmod("d/f", 0o600), do: unlink("d/f")},
	{name: "rmdir lower", do: rmdir("empty")},
	{name: "rmdir merged with whiteouts", do: rmdir("emptied")},
	{name: "rmdir pure upper", do: rmdir("pure.empty")},
	{name: "rmdir renamed with whiteouts", options: redirects, prepare: rename("emptied", "new"), do: rmdir("new")},

	{name: "create new", do: openFile("new", creating, nil)},
	{name: "create in lower directory", do: openFile("d/new", creating, nil)},
	{name: "create deep", do: openFile("deep/1/2/new", creating, nil)},
	{name: "mkdir new", do: mkdir("new")},
	{name: "symlink new", do: symlink("target", "d/new")},
	{name: "mknod new", do: mknod("d/new", unix.S_IFBLK|0o640, unix.Mkdev(7, 200))},
	{name: "create over whiteout", do: openFile("gone", creating, nil)},
	{name: "create over whiteout with ACL", do: openFile("acl/gone", creating, nil)},
	{name: "mkdir over whiteout", do: mkdir("gonedir")},
	{name: "symlink over whiteout", do: symlink("target", "gone")},
	{name: "mknod over whiteout", do: mknod("gone", unix.S_IFIFO|0o640, 0)},
	{name: "create without a name", do: openFile("d", unix.O_WRONLY|unix.O_TMPFILE, nil), noChange: true},

	{name: "link lower", do: link("d/f", "d/new")},
	{name: "link lower to lower directory", do: link("a", "deep/1/new")},
	{name: "link upper", do: link("up", "d/new")},
	{name: "link copied up", prepare: chmod("a", 0o600), do: link("a", "d/new")},
	{name: "link over whiteout", do: link("a", "gone")},
	{name: "link what has no name", do: func(dir string) error {
		return openFile("pure", unix.O_WRONLY|unix.O_TMPFILE, func(fd int) error {
			return unix.Linkat(fd, "", unix.AT_FDCWD, dir+"/gone", unix.AT_EMPTY_PATH)
		})(dir)
	}},

	{name: "rename lower to new", do: rename("a", "new")},
	{name: "rename lower over upper", do: rename("a", "up")},
	{name: "rename lower over lower", do: rename("a", "b")},
	{name: "rename lower over merged", do: rename("a", "over")},
	{name: "rename lower over whiteout", do: rename("a", "gone")},
	{name: "rename lower to lower directory", do: rename("a", "deep/1/new")},
	{name: "rename lower out of lower directory", do: rename("d/f", "deep/f")},
	{name: "rename lower not over", do: rename2("a", "new", noReplace)},
	{name: "rename upper to new", do: rename("up", "d/new")},
	{name: "rename upper over whiteout", do: rename("up", "gone")},
	{name: "rename upper over lower", do: rename("up", "a")},
	{name: "rename merged to new", do: rename("over", "new")},
	{name: "rename merged over whiteout", do: rename("over", "gone")},
	{name: "rename copied up", prepare: chmod("d/f", 0o600), do: rename("d/f", "pure/f")},

	{name: "rename directory to new", do: rename("pure", "new")},
	{name: "rename directory to merged directory", do: rename("pure", "m/new")},
	{name: "rename directory over whiteout", do: rename("pure", "gonedir")},
	{name: "rename directory over upper", do: rename("pure", "pure.empty")},
	{name: "rename directory over lower", do: rename("pure", "empty")},
	{name: "rename directory over merged with whiteouts", do: rename("pure", "emptied")},
	{name: "rename lower directory", options: redirects, do: rename("d", "d.new")},
	{name: "rename merged directory away", options: redirects, do: rename("m/n", "pure/n")},
	{name: "rename merged directory over whiteout", options: redirects, do: rename("m", "gonedir")},
	{name: "rename lower directory over merged with whiteouts", options: redirects, do: rename("d", "emptied")},
	{name: "rename renamed directory", options: redirects, prepare: rename("m", "m.new"), do: rename("m.new", "pure/m")},

	{name: "exchange lower", do: rename2("a", "b", exchange)},
	{name: "exchange lower and upper", do: rename2("d/f", "up", exchange)},
	{name: "exchange upper", do: rename2("up", "over", exchange)},
	{name: "exchange file and directory", do: rename2("a", "pure", exchange)},
	{name: "exchange lower directories", options: redirects, do: rename2("d", "m", exchange)},

	// Data are copied into the upper file itself, which changes its time of modification, as on the kernel.
	{name: "metacopy: chmod", options: metacopy, do: chmod("d/f", 0o600)},
	{name: "metacopy: write", options: metacopy, prepare: chmod("big", 0o600), between: steps{touch("big")}, do: openFile("big", unix.O_WRONLY, write("x"))},
	{name: "metacopy: rename", options: metacopy, do: rename("d/f", "deep/f")},
	{name: "metacopy: rename a second time", options: metacopy, prepare: rename("d/f", "deep/f"), do: rename("deep/f", "f")},
	{name: "metacopy: link", options: metacopy, prepare: chmod("a", 0o600), between: steps{touch("a")}, do: link("a", "d/new")},
	{name: "metacopy: truncate", options: metacopy, prepare: chmod("big", 0o600), between: steps{touch("big")}, do: truncate("big", 5)},
	{name: "metacopy: unlink", options: metacopy, prepare: chmod("a", 0o600), do: unlink("a")},

	// What needs more than to write waits for all data.
	{name: "lazy: open and write", options: lazy, between: steps{touch("big")}, do: someData},
	{name: "lazy: sync and chmod", options: lazy, between: steps{touch("big"), someData}, do: openFile("big", unix.O_RDWR, inTurn(write("x"), unix.Fsync,
		func(fd int) error { return unix.Fchmod(fd, 0o600) }))},
	{name: "lazy: grow", options: lazy, between: steps{touch("big"), someData}, do: openFile("big", unix.O_RDWR, inTurn(write("x"), resize(100_000)))},
	{name: "lazy: truncate", options: lazy, early: true, between: steps{touch("big"), someData}, do: openFile("big", unix.O_RDWR, inTurn(write("x"), resize(0)))},
	{name: "lazy: rename", options: lazy, between: steps{touch("big"), someData}, do: func(dir string) error {
		if err := someData(dir); err != nil {
			return err
		}
		return rename("big", "new")(dir)
	}},

	{name: "index: chmod", options: indexed, do: chmod("h1", 0o600)},
	{name: "index: write", options: indexed, do: openFile("h1", unix.O_WRONLY, write("x"))},
	{name: "index: unlink", options: indexed, do: unlink("h1")},
	{name: "index: link", options: indexed, do: link("h1", "deep/1/new")},
	{name: "index: rename", options: indexed, do: rename("h1", "d/new")},
	{name: "index: rename over", options: indexed, do: rename("up", "h1")},

	// Where there are no device nodes, whiteouts are AUFS's marks, which the kernel does not know.
	{name: "AUFS: unlink lower", options: aufs, deny: "mknodat", do: unlink("a")},
	{name: "AUFS: unlink merged", options: aufs, deny: "mknodat", prepare: chmod("d/f", 0o600), do: unlink("d/f")},
	{name: "AUFS: rmdir lower", options: aufs, deny: "mknodat", do: rmdir("empty")},
	{name: "AUFS: rmdir merged with whiteouts", options: aufs, deny: "mknodat", do: rmdir("emptied")},
	{name: "AUFS: create over whiteout", options: aufs, deny: "mknodat", prepare: unlink("a"), do: openFile("a", creating, nil)},
	{name: "AUFS: mkdir over whiteout", options: aufs, deny: "mknodat", prepare: rmdir("emptied"), do: mkdir("emptied")},
	{name: "AUFS: rename lower over whiteout", options: aufs, deny: "mknodat", prepare: unlink("a"), do: rename("b", "a")},
	{name: "AUFS: rename directory over whiteout", options: aufs, deny: "mknodat", prepare: rmdir("emptied"), do: rename("pure", "emptied")},
	{name: "AUFS: link over whiteout", options: aufs, deny: "mknodat", prepare: unlink("a"), do: link("b", "a")},
}
