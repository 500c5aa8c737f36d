package mounttest

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// old is a time long ago, in seconds since 1970.
const old = 1000000000

// lastAccess checks whether reading a file and a directory of the upper layer sets their times of last access.
func lastAccess(u *union, opt layer.Options, file, dir bool) {
	u.Helper()
	u.onUpper = "file f \"f\"\ndir d\nfile d/x"
	u.layers("dir d\nfile d/y")
	u.spec.Options = opt
	u.remount()
	for _, name := range []string{"f", "d"} {
		u.ok(u.utimes(name, old))
	}
	u.write("d/new", "new")
	u.ok(u.unlink("d/y"))
	equal(u, u.stat("d").Atim.Sec, old)
	u.read("f")
	equal(u, u.list("d"), "new x")
	equal(u, u.stat("f").Atim.Sec > old, file)
	equal(u, u.stat("d").Atim.Sec > old, dir)
}

var times = []check{
	{"set and omitted", func(u *union) {
		u.mount("file f\ndir d\nsymlink s -> f")
		for _, name := range []string{"f", "d", "s"} {
			set := func(atime, mtime unix.Timespec) {
				u.Helper()
				u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.path(name), []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
			}
			set(unix.Timespec{Sec: old, Nsec: 111}, unix.Timespec{Sec: old + 1, Nsec: 222})
			st := u.stat(name)
			equal(u, st.Atim, unix.Timespec{Sec: old, Nsec: 111})
			equal(u, st.Mtim, unix.Timespec{Sec: old + 1, Nsec: 222})
			set(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: old + 2})
			st = u.stat(name)
			equal(u, st.Atim, unix.Timespec{Sec: old, Nsec: 111})
			equal(u, st.Mtim.Sec, old+2)
			set(unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT})
			st = u.stat(name)
			equal(u, st.Atim.Sec > old+1000, true)
			equal(u, st.Mtim.Sec, old+2)
		}
	}},
	{"a write through a mapping sets them", func(u *union) {
		u.onUpper = "file up \"data\""
		u.mount("file low \"data\"")
		for _, name := range []string{"low", "up"} {
			u.ok(u.utimes(name, old))
			fd := u.open(name, unix.O_RDWR, 0)
			m, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			u.ok(err)
			equal(u, u.fstat(fd).Mtim.Sec, old)
			m[0] = 'D'
			u.ok(unix.Msync(m, unix.MS_SYNC))
			equal(u, u.fstat(fd).Mtim.Sec > old, true)
			u.ok(u.utimes(name, old))
			equal(u, u.fstat(fd).Mtim.Sec, old)
			m[0] = 'd'
			u.ok(unix.Munmap(m))
			u.close(fd)
			equal(u, u.stat(name).Mtim.Sec > old, true)
		}
	}},
	{"of last access", func(u *union) { lastAccess(u, layer.Options{}, true, true) }},
	{"of last access, noatime", func(u *union) { lastAccess(u, layer.Options{Atime: layer.AtimeNever}, false, false) }},
	{"of last access, nodiratime", func(u *union) {
		lastAccess(u, layer.Options{Atime: layer.AtimeAlways, NoDirTime: true}, true, false)
	}},
	{"of last access of lower files", func(u *union) {
		u.layers("file f \"f\"\ndir d\nfile d/x")
		u.spec.Options.Atime = layer.AtimeAlways
		ago := []unix.Timespec{{Sec: old}, {Nsec: unix.UTIME_OMIT}}
		for _, name := range []string{"f", "d"} {
			u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.low(0, name), ago, 0))
		}
		u.remount()
		u.read("f")
		u.list("d")
		equal(u, u.stat("f").Atim.Sec, old)
		equal(u, u.stat("d").Atim.Sec, old)
	}},
	{"before 1970 and after 2038", func(u *union) {
		u.mount("file f")
		for _, sec := range []int64{-1000, 1 << 32} {
			u.ok(u.utimes("f", sec))
			equal(u, u.stat("f").Mtim.Sec, sec)
			u.remount()
			equal(u, u.stat("f").Mtim.Sec, sec)
		}
	}},
	{"a change in a directory sets its times", func(u *union) {
		u.mount("dir d\nfile d/a\nfile d/b\nfile d/c\ndir d/e")
		changes := []struct {
			what string
			do   func() error
		}{
			{"create", func() error { return u.mknod("d/new", unix.S_IFREG|0o644, 0) }},
			{"mkdir", func() error { return u.mkdir("d/newdir") }},
			{"symlink", func() error { return u.symlink("x", "d/s") }},
			{"link", func() error { return u.link("d/a", "d/l") }},
			{"unlink of a lower file", func() error { return u.unlink("d/b") }},
			{"unlink of an upper file", func() error { return u.unlink("d/new") }},
			{"rmdir of a lower directory", func() error { return u.rmdir("d/e") }},
			{"rmdir of an upper directory", func() error { return u.rmdir("d/newdir") }},
			{"rename", func() error { return u.rename("d/c", "d/z") }},
			{"rename away", func() error { return u.rename("d/z", "z") }},
			{"rename into", func() error { return u.rename("z", "d/z") }},
		}
		for _, c := range changes {
			u.ok(u.utimes("d", old))
			if err := c.do(); err != nil {
				u.Fatalf("%s: %v", c.what, err)
			}
			if u.stat("d").Mtim.Sec == old {
				u.Errorf("%s left the time of the directory as it was", c.what)
			}
		}
	}},
	{"a change of a child does not", func(u *union) {
		u.mount("dir d mtime=1000000000\nfile d/a\nfile d/b\nfile d/c")
		u.ok(u.chmod("d/a", 0o600)) // copies up, which makes a name in the upper directory
		u.append("d/b", "x")
		u.ok(u.setxattr("d/c", "user.x", "1"))
		equal(u, u.stat("d").Mtim.Sec, old)
		u.remount()
		equal(u, u.stat("d").Mtim.Sec, old)
	}},
	{"writing and truncating set the time of a file", func(u *union) {
		u.mount(`file f "0123"`)
		changes := map[string]func(){
			"write":            func() { u.append("f", "x") },
			"truncate":         func() { u.ok(u.truncate("f", 2)) },
			"truncate to same": func() { u.ok(u.truncate("f", u.stat("f").Size)) },
			"O_TRUNC":          func() { u.write("f", "") },
		}
		for what, do := range changes {
			u.ok(u.utimes("f", old))
			do()
			if u.stat("f").Mtim.Sec == old {
				u.Errorf("%s left the time as it was", what)
			}
		}
	}},
	{"metadata set ctime only", func(u *union) {
		u.mount("file f mtime=1000000000")
		for what, do := range map[string]func() error{
			"chmod":       func() error { return u.chmod("f", 0o640) },
			"chown":       func() error { return u.chown("f", 1, 1) },
			"setxattr":    func() error { return u.setxattr("f", "user.x", "1") },
			"removexattr": func() error { return errors.Join(u.setxattr("f", "user.y", "1"), u.removexattr("f", "user.y")) },
			"link":        func() error { return u.link("f", "g") },
		} {
			before := u.stat("f").Ctim
			sleepTick()
			u.ok(do())
			if u.stat("f").Ctim == before {
				u.Errorf("%s left ctime as it was", what)
			}
			equal(u, u.stat("f").Mtim.Sec, old)
		}
	}},
	{"reading a lower file leaves it alone", func(u *union) {
		u.layers("file f \"x\"\ndir d")
		for _, name := range []string{"f", "d"} {
			ts := unix.Timespec{Sec: old}
			u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.low(0, name), []unix.Timespec{ts, ts}, 0))
		}
		u.editsLower = true
		u.remount()
		u.read("f")
		u.list("d")
		for _, name := range []string{"f", "d"} {
			var st unix.Stat_t
			u.ok(unix.Lstat(u.low(0, name), &st))
			equal(u, st.Atim.Sec, old)
			equal(u, st.Mtim.Sec, old)
		}
		equal(u, u.stat("f").Mtim.Sec, old)
	}},
	{"times set on an open file stay after the last write", func(u *union) {
		u.mount(`file f "x"`)
		fd := u.open("f", unix.O_RDWR, 0)
		u.writeAt(fd, 0, "y")
		ts := unix.Timespec{Sec: old}
		u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.path("f"), []unix.Timespec{ts, ts}, 0))
		u.close(fd)
		equal(u, u.stat("f").Mtim.Sec, old)
		u.remount()
		equal(u, u.stat("f").Mtim.Sec, old)
	}},
}
