package mounttest

import (
	"golang.org/x/sys/unix"
)

var remove = []check{
	{"an upper file leaves nothing", func(u *union) {
		u.onUpper = "file f\ndir d\ndir d/e\nfile d/g"
		u.mount("dir d")
		u.ok(u.unlink("f"))
		u.ok(u.unlink("d/g"))
		u.ok(u.rmdir("d/e"))
		u.upper("dir d")
	}},
	{"a lower file leaves a whiteout", func(u *union) {
		u.mount("file f\ndir d\nfile d/g\nfile d/h")
		u.ok(u.unlink("f"))
		u.ok(u.unlink("d/g"))
		u.merged("dir d\nfile d/h")
		u.upper("whiteout f\ndir d\nwhiteout d/g")
		u.remount()
		u.merged("dir d\nfile d/h")
	}},
	{"a copied-up file leaves a whiteout", func(u *union) {
		u.mount("file f")
		u.append("f", "x")
		u.ok(u.unlink("f"))
		u.missing("f")
		u.upper("whiteout f")
	}},
	{"a file in a pure upper directory leaves nothing", func(u *union) {
		u.onUpper = "dir d opaque\nfile d/f"
		u.mount("dir d\nfile d/f")
		u.ok(u.unlink("d/f"))
		u.missing("d/f")
		u.upper("dir d opaque")
	}},
	{"a file that a lower whiteout hides leaves nothing", func(u *union) {
		u.onUpper = "file f"
		u.mount("whiteout f", "file f \"hidden\"")
		u.ok(u.unlink("f"))
		u.missing("f")
		u.upper("")
		u.remount()
		u.missing("f")
	}},
	{"a whiteout of every type", func(u *union) {
		const text = "file f\nsymlink s -> d\nfifo p\nchar c 1:3\nblock b 7:0\nsocket k\ndir d"
		u.mount(text)
		for _, name := range []string{"f", "s", "p", "c", "b", "k"} {
			u.ok(u.unlink(name))
		}
		u.ok(u.rmdir("d"))
		u.merged("")
		u.upper("whiteout f\nwhiteout s\nwhiteout p\nwhiteout c\nwhiteout b\nwhiteout k\nwhiteout d")
	}},
	{"an empty merged directory", func(u *union) {
		u.onUpper = "dir d"
		u.mount("dir d", "dir d")
		u.ok(u.rmdir("d"))
		u.upper("whiteout d")
		u.merged("")
	}},
	{"a merged directory with whiteouts only", func(u *union) {
		u.mount("dir d\nfile d/a\nfile d/b\ndir d/e\nfile d/e/x")
		u.ok(u.unlink("d/a"))
		u.ok(u.unlink("d/b"))
		u.ok(u.unlink("d/e/x"))
		u.fails(unix.ENOTEMPTY, u.rmdir("d"))
		u.ok(u.rmdir("d/e"))
		u.ok(u.rmdir("d"))
		u.upper("whiteout d")
		u.merged("")
	}},
	{"a lower directory whose children a middle layer hides", func(u *union) {
		u.mount("dir d\nwhiteout d/a", "dir d\nfile d/a")
		u.ok(u.rmdir("d"))
		u.upper("whiteout d")
	}},
	{"an opaque directory over a lower one", func(u *union) {
		u.onUpper = "dir d opaque"
		u.mount("dir d\nfile d/old")
		u.ok(u.rmdir("d"))
		u.missing("d")
		u.upper("whiteout d")
	}},
	{"directories that are not empty", func(u *union) {
		u.onUpper = "dir up\nfile up/x\ndir both\nwhiteout both/a"
		u.mount("dir low\nfile low/x\ndir both\nfile both/a\nfile both/b")
		for _, name := range []string{"up", "low", "both"} {
			u.fails(unix.ENOTEMPTY, u.rmdir(name))
		}
		u.merged("dir up\nfile up/x\ndir low\nfile low/x\ndir both\nfile both/b")
	}},
	{"unlink of a directory and rmdir of a file", func(u *union) {
		u.onUpper = "dir ud\nfile uf"
		u.mount("dir ld\nfile lf\nsymlink s -> ld")
		u.fails(unix.EISDIR, u.unlink("ud"))
		u.fails(unix.EISDIR, u.unlink("ld"))
		u.fails(unix.ENOTDIR, u.rmdir("uf"))
		u.fails(unix.ENOTDIR, u.rmdir("lf"))
		u.fails(unix.ENOTDIR, u.rmdir("s"))
		u.merged("dir ud\nfile uf\ndir ld\nfile lf\nsymlink s -> ld")
	}},
	{"what is not there", func(u *union) {
		u.onUpper = "whiteout gone"
		u.mount("file gone")
		u.fails(unix.ENOENT, u.unlink("gone"))
		u.fails(unix.ENOENT, u.rmdir("gone"))
		u.fails(unix.ENOENT, u.unlink("none"))
		u.fails(unix.EINVAL, u.rmdir("."))
		u.fails(unix.EBUSY, unix.Rmdir(u.dir))
		u.upper("whiteout gone")
	}},
	{"a directory made again shows nothing of the old one", func(u *union) {
		u.mount("dir d\nfile d/a \"old\"\ndir d/s\nfile d/s/b \"old\"")
		u.stat("d/s/b") // known before it goes
		u.ok(u.unlink("d/s/b"))
		u.ok(u.rmdir("d/s"))
		u.ok(u.unlink("d/a"))
		u.ok(u.rmdir("d"))
		u.ok(u.mkdir("d"))
		u.missing("d/a")
		u.missing("d/s")
		u.ok(u.mkdir("d/s"))
		u.missing("d/s/b")
		u.write("d/a", "new")
		u.merged("dir d\nfile d/a \"new\"\ndir d/s")
		u.upper("dir d opaque\nfile d/a \"new\"\ndir d/s")
		u.remount()
		u.merged("dir d\nfile d/a \"new\"\ndir d/s")
	}},
	{"a symlink goes, not what it leads to", func(u *union) {
		u.mount("symlink s -> f\nfile f \"x\"")
		u.ok(u.unlink("s"))
		u.merged(`file f "x"`)
	}},
	{"the attributes of the directory stay", func(u *union) {
		u.mount(`dir d mode=0750 owner=1:2 user.x="1"
			file d/f`)
		u.ok(u.unlink("d/f"))
		u.merged(`dir d mode=0750 owner=1:2 user.x="1"`)
	}},
	{"unlinking copies nothing", func(u *union) {
		u.mount("dir d\nfile d/big size=10485760 data=0:\"x\"")
		fd := u.open("d/big", unix.O_RDONLY, 0)
		u.ok(u.unlink("d/big"))
		equal(u, u.fstat(fd).Size, 10485760)
		equal(u, u.readFD(fd)[:2], "x\x00")
		u.upper("dir d\nwhiteout d/big")
	}},
}
