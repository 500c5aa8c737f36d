package mounttest

import (
	"golang.org/x/sys/unix"
)

// chattr sets the flags of a file until undo is called.
func (u *union) chattr(name string, flags int) (undo func()) {
	u.Helper()
	fd := u.open(name, unix.O_RDONLY, 0)
	u.ok(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags))
	return func() {
		u.Helper()
		u.ok(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0))
		u.close(fd)
	}
}

var attr = []check{
	{"flags", func(u *union) {
		const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
		u.onUpper = "file f \"a\"\ndir d\ndir d/sub\nfile d/sub/x"
		u.mount("dir low")
		before := u.stat("f").Ctim
		sleepTick()
		undo := u.chattr("f", appendOnly)
		equal(u, u.stat("f").Ctim != before, true)
		u.append("f", "b")
		u.fails(unix.EPERM, u.openErr("f", unix.O_WRONLY, 0))
		u.fails(unix.EPERM, u.unlink("f"))
		undo()
		u.append("f", "c")
		equal(u, u.read("f"), "abc")
		for _, flag := range []int{immutable, appendOnly} {
			undo := u.chattr("d", flag)
			u.fails(unix.EPERM, u.rmdir("d/sub"))
			undo()
		}
		u.fails(unix.ENOTEMPTY, u.rmdir("d/sub"))
	}},
	{"chmod", func(u *union) {
		u.onUpper = "file up\ndir ud"
		u.mount("file f\ndir d\nsymlink s -> f")
		for _, name := range []string{"up", "ud", "f", "d"} {
			for _, mode := range []uint32{0o7777, 0, 0o640} {
				u.ok(u.chmod(name, mode))
				equal(u, u.stat(name).Mode&0o7777, mode)
			}
		}
		u.ok(u.chmod("s", 0o600)) // follows
		u.upper("file up mode=0640\ndir ud mode=0640\nfile f mode=0600\ndir d mode=0640")
		u.fails(unix.EOPNOTSUPP, unix.Fchmodat(unix.AT_FDCWD, u.path("s"), 0o600, unix.AT_SYMLINK_NOFOLLOW))
	}},
	{"chown", func(u *union) {
		u.onUpper = "file up"
		u.mount("file f\ndir d\nsymlink s -> f")
		for _, name := range []string{"up", "f", "d", "s"} {
			u.ok(u.chown(name, 1, -1))
			u.ok(u.chown(name, -1, 2))
		}
		u.merged("file up owner=1:2\nfile f owner=1:2\ndir d owner=1:2\nsymlink s -> f owner=1:2")
		u.ok(unix.Chown(u.path("s"), 3, 4)) // follows
		equal(u, u.stat("f").Uid, 3)
		equal(u, u.stat("s").Uid, 1)
	}},
	{"truncate", func(u *union) {
		u.mount("file f \"0123456789\"\ndir d\nfifo p\nsymlink s -> f")
		u.fails(unix.EISDIR, u.truncate("d", 0))
		u.fails(unix.EINVAL, u.truncate("p", 0))
		u.fails(unix.EINVAL, u.truncate("f", -1))
		u.fails(unix.ENOENT, u.truncate("none", 0))
		u.ok(u.truncate("f", 20))
		equal(u, u.read("f"), "0123456789\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		u.ok(u.truncate("s", 2))
		equal(u, u.read("f"), "01")
		fd := u.open("f", unix.O_RDONLY, 0)
		u.fails(unix.EINVAL, unix.Ftruncate(fd, 0))
	}},
	{"size and blocks", func(u *union) {
		u.mount("file data size=65536 data=0:\"x\" data=65535:\"x\"\nfile hole size=10485760")
		equal(u, u.stat("hole").Size, 10485760)
		if blocks := u.stat("hole").Blocks; blocks > 16 {
			u.Errorf("a hole has %d blocks", blocks)
		}
		if blocks := u.stat("data").Blocks; blocks == 0 {
			u.Errorf("data have no blocks")
		}
		u.write("new", long(100000))
		fd := u.open("new", unix.O_RDONLY, 0)
		u.ok(unix.Fsync(fd))
		equal(u, u.fstat(fd).Size, 100000)
		if blocks := u.fstat(fd).Blocks; blocks < 100000/512 {
			u.Errorf("100000 bytes have %d blocks", blocks)
		}
	}},
	{"numbers of links", func(u *union) {
		u.onUpper = "dir up\ndir up/a\ndir both"
		u.mount("dir low\ndir low/a\ndir low/b\ndir both\ndir both/a\nfile f")
		equal(u, u.stat("f").Nlink, 1)
		equal(u, u.stat("both").Nlink, 1) // a merged directory: nobody counts
		equal(u, u.stat("low").Nlink, 4)
		equal(u, u.stat("up").Nlink, 3)
	}},
	{"types and device numbers", func(u *union) {
		u.mount("char c 1:3 mode=0666\nblock b 259:300\nfifo p\nsocket k\nsymlink s -> x")
		equal(u, u.stat("c").Rdev, unix.Mkdev(1, 3))
		equal(u, u.stat("b").Rdev, unix.Mkdev(259, 300))
		u.ok(u.chmod("b", 0o600))
		equal(u, u.stat("b").Rdev, unix.Mkdev(259, 300))
		equal(u, u.stat("p").Mode, unix.S_IFIFO|0o644)
		equal(u, u.stat("k").Mode, unix.S_IFSOCK|0o644)
		equal(u, u.stat("s").Mode, unix.S_IFLNK|0o777)
		equal(u, u.stat("s").Size, 1)
	}},
	{"the time of birth", func(u *union) {
		u.mount("file f")
		u.write("new", "")
		for _, name := range []string{"f", "new"} {
			var st unix.Statx_t
			u.ok(unix.Statx(unix.AT_FDCWD, u.path(name), 0, unix.STATX_BTIME, &st))
			if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec == 0 {
				u.Errorf("%s has no time of birth", name)
			}
		}
	}},
	{"the file system", func(u *union) {
		u.mount("file f")
		var got, want unix.Statfs_t
		u.ok(unix.Statfs(u.dir, &got))
		u.ok(unix.Statfs(u.spec.Upper, &want))
		equal(u, got.Bsize, want.Bsize)
		equal(u, got.Frsize, want.Frsize)
		equal(u, got.Blocks, want.Blocks)
		equal(u, got.Files, want.Files)
		equal(u, got.Namelen, want.Namelen)
		u.ok(unix.Statfs(u.path("f"), &got))
		equal(u, got.Blocks, want.Blocks)
	}},
	{"access", func(u *union) {
		u.mount("file x mode=0700\nfile f mode=0600\ndir d mode=0000")
		u.ok(unix.Access(u.path("x"), unix.X_OK))
		u.fails(unix.EACCES, unix.Access(u.path("f"), unix.X_OK)) // of a file that nobody may execute, root neither
		u.ok(unix.Access(u.path("d"), unix.R_OK|unix.W_OK|unix.X_OK))
		u.fails(unix.ENOENT, unix.Access(u.path("none"), unix.F_OK))
	}},
}
