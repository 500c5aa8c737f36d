package mounttest

import (
	"golang.org/x/sys/unix"
)

// mountUserXattr is mount with option userxattr: the marks are user.overlay.*.
func (u *union) mountUserXattr(lowers ...string) {
	u.Helper()
	u.layers(lowers...)
	u.spec.Options.UserXattr = true
	u.remount()
}

var userxattr = []check{
	{"opaque directories are read", func(u *union) {
		u.onUpper = "dir d user.overlay.opaque=\"y\"\nfile d/new"
		u.mountUserXattr("dir d\nfile d/old\ndir e user.overlay.opaque=\"y\"\nfile e/1", "dir e\nfile e/2")
		u.merged("dir d\nfile d/new\ndir e\nfile e/1")
	}},
	{"opaque directories are written", func(u *union) {
		u.mountUserXattr("dir d\nfile d/old")
		u.ok(u.unlink("d/old"))
		u.ok(u.rmdir("d"))
		u.ok(u.mkdir("d"))
		u.upper("dir d opaque")
		u.remount()
		u.merged("dir d")
	}},
	{"the marks of trusted.overlay are ordinary names", func(u *union) {
		u.onUpper = `dir d trusted.overlay.opaque="y"`
		u.mountUserXattr("dir d\nfile d/low")
		u.merged("dir d trusted.overlay.opaque=\"y\"\nfile d/low")
		u.ok(u.setxattr("d", "trusted.overlay.x", "1"))
		u.upper(`dir d trusted.overlay.opaque="y" trusted.overlay.x="1"`)
	}},
	{"marks cannot be forged", func(u *union) {
		u.mountUserXattr("dir d mode=0777\nfile d/f", "dir d\nfile d/low")
		u.as(user{uid: nobody, gid: nobody}, func() {
			u.ok(u.setxattr("d", "user.overlay.opaque", "y"))
			equal(u, u.listxattr("d"), "user.overlay.opaque")
		})
		u.upper(`dir d mode=0777 user.overlay.overlay.opaque="y"`)
		u.remount()
		equal(u, u.list("d"), "f low")
	}},
	{"copy-up and what cannot have user.* names", func(u *union) {
		u.mountUserXattr("file f \"f\" user.x=\"1\"\nsymlink s -> f\nfifo p\nchar c 1:3\ndir d")
		u.append("f", "+")
		for _, name := range []string{"s", "p", "c"} {
			u.ok(u.chown(name, 1, 2))
			u.ok(u.rename(name, "d/"+name))
			u.fails(unix.EPERM, u.setxattr("d/"+name, "user.x", "1"))
		}
		u.upper(`whiteout c
			dir d
			char d/c 1:3 owner=1:2
			fifo d/p owner=1:2
			symlink d/s -> f owner=1:2
			file f "f+" user.x="1"
			whiteout p
			whiteout s`)
	}},
}
