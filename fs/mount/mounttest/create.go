package mounttest

import (
	"golang.org/x/sys/unix"
)

var create = []check{
	{"every type", func(u *union) {
		u.mount("dir low")
		for _, dir := range []string{".", "low"} {
			u.write(join(dir, "f"), "x")
			u.ok(u.mkdir(join(dir, "d")))
			u.ok(u.symlink("target", join(dir, "s")))
			u.ok(u.mknod(join(dir, "p"), unix.S_IFIFO|0o600, 0))
			u.ok(u.mknod(join(dir, "c"), unix.S_IFCHR|0o600, unix.Mkdev(1, 3)))
			u.ok(u.mknod(join(dir, "b"), unix.S_IFBLK|0o600, unix.Mkdev(7, 9)))
			u.ok(u.mknod(join(dir, "k"), unix.S_IFSOCK|0o600, 0))
			u.ok(u.mknod(join(dir, "r"), unix.S_IFREG|0o600, 0))
		}
		const want = `block b 7:9 mode=0600
			char c 1:3 mode=0600
			dir d
			file f "x"
			socket k mode=0600
			fifo p mode=0600
			file r mode=0600
			symlink s -> target
			dir low
			block low/b 7:9 mode=0600
			char low/c 1:3 mode=0600
			dir low/d
			file low/f "x"
			socket low/k mode=0600
			fifo low/p mode=0600
			file low/r mode=0600
			symlink low/s -> target`
		u.merged(want)
		u.upper(want)
	}},
	{"a name that a lower layer has is taken", func(u *union) {
		u.mount("file f\ndir d\nsymlink s -> nowhere\nfifo p")
		for _, name := range []string{"f", "d", "s", "p"} {
			u.fails(unix.EEXIST, u.mkdir(name))
			u.fails(unix.EEXIST, u.symlink("x", name))
			u.fails(unix.EEXIST, u.mknod(name, unix.S_IFIFO|0o600, 0))
			u.fails(unix.EEXIST, u.link("f", name))
			u.fails(unix.EEXIST, u.openErr(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644))
		}
		u.upper("")
	}},
	{"O_CREAT opens what a lower layer has", func(u *union) {
		u.mount(`file f "old" mode=0600`)
		fd := u.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		equal(u, u.readFD(fd), "old")
		u.upper(`file f "old" mode=0600`)
	}},
	{"O_CREAT follows a symlink", func(u *union) {
		u.mount("symlink s -> d/new\ndir d")
		u.close(u.open("s", unix.O_CREAT|unix.O_WRONLY, 0o600))
		u.upper("dir d\nfile d/new mode=0600")
	}},
	{"a file over a whiteout", func(u *union) {
		u.mount(`file f "lower" mode=0600 owner=1:1 user.x="1"`)
		u.ok(u.unlink("f"))
		u.close(u.open("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o640))
		u.merged("file f mode=0640")
		u.upper("file f mode=0640")
	}},
	{"every type over a whiteout", func(u *union) {
		u.onUpper = "whiteout f\nwhiteout s\nwhiteout p\nwhiteout c\nwhiteout l"
		u.mount("file f\nfile s\nfile p\nfile c\nfile l\nfile other \"o\"")
		u.write("f", "new")
		u.ok(u.symlink("t", "s"))
		u.ok(u.mknod("p", unix.S_IFIFO|0o640, 0))
		u.ok(u.mknod("c", unix.S_IFCHR|0o640, unix.Mkdev(1, 5)))
		u.ok(u.link("other", "l"))
		const want = "file f \"new\"\nsymlink s -> t\nfifo p mode=0640\nchar c 1:5 mode=0640\nfile l \"o\" nlink=2\nhardlink other -> l"
		u.merged(want)
		u.upper(want)
	}},
	{"a directory over a whiteout is opaque", func(u *union) {
		u.onUpper = "whiteout d"
		u.mount("dir d\nfile d/old\ndir d/sub\nfile d/sub/old")
		u.ok(u.mkdir("d"))
		u.missing("d/old")
		u.merged("dir d")
		u.ok(u.mkdir("d/sub"))
		u.missing("d/sub/old")
		u.upper("dir d opaque\ndir d/sub")
		u.remount()
		u.merged("dir d\ndir d/sub")
	}},
	{"a directory over a whiteout of a file is opaque too", func(u *union) {
		u.mount("file d")
		u.ok(u.unlink("d"))
		u.ok(u.mkdir("d"))
		u.upper("dir d opaque")
	}},
	{"a new directory is not opaque", func(u *union) {
		u.mount("dir d")
		u.ok(u.mkdir("d/new"))
		u.upper("dir d\ndir d/new")
	}},
	{"a file where a directory was", func(u *union) {
		u.mount("dir d\nfile d/x")
		u.ok(u.unlink("d/x"))
		u.ok(u.rmdir("d"))
		u.write("d", "file")
		u.upper(`file d "file"`)
		_, err := u.lstat("d/x")
		u.fails(unix.ENOTDIR, err)
		u.ok(u.unlink("d"))
		u.upper("whiteout d")
	}},
	{"in a directory that is not there", func(u *union) {
		u.mount("file f\ndir gone")
		u.ok(u.rmdir("gone"))
		for _, dir := range []string{"none", "gone"} {
			u.fails(unix.ENOENT, u.mkdir(dir+"/x"))
			u.fails(unix.ENOENT, u.openErr(dir+"/x", unix.O_CREAT|unix.O_WRONLY, 0o600))
		}
		u.fails(unix.ENOTDIR, u.mkdir("f/x"))
	}},
	{"in a directory that was removed while open", func(u *union) {
		u.mount("dir d")
		fd := u.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		u.ok(u.rmdir("d"))
		u.fails(unix.ENOENT, unix.Mkdirat(fd, "x", 0o755))
		_, err := unix.Openat(fd, "x", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		u.fails(unix.ENOENT, err)
		u.ok(u.mkdir("d")) // another one
		u.fails(unix.ENOENT, unix.Mkdirat(fd, "x", 0o755))
		u.merged("dir d")
	}},
	{"a whiteout cannot be made", func(u *union) {
		u.mount("file f\ndir d")
		for _, name := range []string{"new", "d/new"} {
			u.fails(unix.EPERM, u.mknod(name, unix.S_IFCHR|0o600, 0))
			u.missing(name)
		}
		u.fails(unix.EEXIST, u.mknod("f", unix.S_IFCHR|0o600, 0))
		u.ok(u.mknod("block", unix.S_IFBLK|0o600, 0)) // only character devices are whiteouts
		u.merged("file f\ndir d\nblock block 0:0 mode=0600")
	}},
	{"made, removed and made again", func(u *union) {
		u.mount("file f \"lower\"\ndir d\nfile d/x")
		for _, name := range []string{"f", "new", "d/x", "d/new"} {
			for range 3 {
				u.write(name, "1")
				u.ok(u.unlink(name))
				u.missing(name)
				u.ok(u.mkdir(name))
				u.ok(u.rmdir(name))
				u.missing(name)
			}
		}
		u.merged("dir d")
		u.upper("whiteout f\ndir d\nwhiteout d/x")
	}},
	{"a file that is open stays itself when its name is reused", func(u *union) {
		u.mount(`file f "lower"`)
		old := u.open("f", unix.O_RDONLY, 0)
		u.ok(u.unlink("f"))
		u.write("f", "new")
		equal(u, u.readFD(old), "lower")
		equal(u, u.read("f"), "new")
	}},
}
