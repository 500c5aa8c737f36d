package mounttest

import (
	"strings"

	"golang.org/x/sys/unix"
)

var xattrs = []check{
	{"set, get, list and remove", func(u *union) {
		u.onUpper = `file up user.old="1"`
		u.mount("file f user.old=\"1\"\ndir d user.old=\"1\"")
		for _, name := range []string{"up", "f", "d"} {
			u.ok(u.setxattr(name, "user.new", "value"))
			u.ok(u.setxattr(name, "user.empty", ""))
			u.ok(u.setxattr(name, "trusted.new", "t"))
			equal(u, u.listxattr(name), "trusted.new user.empty user.new user.old")
			v, err := u.getxattr(name, "user.new")
			u.ok(err)
			equal(u, v, "value")
			u.ok(u.removexattr(name, "user.old"))
			_, err = u.getxattr(name, "user.old")
			u.fails(unix.ENODATA, err)
		}
		const attrs = `trusted.new="t" user.empty="" user.new="value"`
		const want = "file up " + attrs + "\nfile f " + attrs + "\ndir d " + attrs
		u.merged(want)
		u.upper(want)
		u.remount()
		u.merged(want)
	}},
	{"CREATE and REPLACE", func(u *union) {
		u.mount(`file f user.a="1"`)
		set := func(name string, flags int) error {
			return unix.Lsetxattr(u.path("f"), name, []byte("2"), flags)
		}
		u.fails(unix.EEXIST, set("user.a", unix.XATTR_CREATE))
		u.fails(unix.ENODATA, set("user.b", unix.XATTR_REPLACE))
		u.ok(set("user.b", unix.XATTR_CREATE))
		u.ok(set("user.a", unix.XATTR_REPLACE))
		u.fails(unix.ENODATA, u.removexattr("f", "user.none"))
		u.upper(`file f user.a="2" user.b="2"`)
	}},
	{"sizes", func(u *union) {
		value := strings.Repeat("v", 2000)
		u.mount("file f user.a=\"" + value + "\"")
		n, err := unix.Lgetxattr(u.path("f"), "user.a", nil)
		u.ok(err)
		equal(u, n, 2000)
		_, err = unix.Lgetxattr(u.path("f"), "user.a", make([]byte, 100))
		u.fails(unix.ERANGE, err)
		_, err = unix.Llistxattr(u.path("f"), make([]byte, 2))
		u.fails(unix.ERANGE, err)
		n, err = unix.Llistxattr(u.path("f"), nil)
		u.ok(err)
		equal(u, n, len("user.a")+1)
		u.ok(u.setxattr("f", "user.b", strings.Repeat("w", 1000)))
		got, err := u.getxattr("f", "user.a")
		u.ok(err)
		equal(u, got, value)
	}},
	{"on what is no file", func(u *union) {
		u.mount("symlink s -> none\nfifo p\nchar c 1:3")
		for _, name := range []string{"s", "p", "c"} {
			u.fails(unix.EPERM, u.setxattr(name, "user.x", "1"))
			u.ok(u.setxattr(name, "trusted.x", "1"))
			equal(u, u.listxattr(name), "trusted.x")
		}
		u.upper("symlink s -> none trusted.x=\"1\"\nfifo p trusted.x=\"1\"\nchar c 1:3 trusted.x=\"1\"")
	}},
	{"on the root", func(u *union) {
		u.mount("file f")
		u.ok(u.setxattr(".", "user.x", "1"))
		u.merged("dir . user.x=\"1\"\nfile f")
	}},
	{"the marks of a layer are not shown", func(u *union) {
		u.onUpper = `dir d opaque user.seen="1" trusted.overlay.origin="x" trusted.overlay.impure="y"`
		u.mount("dir d", "dir e opaque")
		equal(u, u.listxattr("d"), "user.seen")
		for _, name := range []string{"opaque", "origin", "impure", "none"} {
			_, err := u.getxattr("d", "trusted.overlay."+name)
			u.fails(unix.ENODATA, err)
		}
		equal(u, u.listxattr("e"), "")
	}},
	{"marks cannot be forged", func(u *union) {
		u.mount("dir d\nfile d/f\nfile g", "dir d\nfile d/low")
		u.ok(u.setxattr("d", "trusted.overlay.opaque", "y"))
		v, err := u.getxattr("d", "trusted.overlay.opaque")
		u.ok(err)
		equal(u, v, "y")
		equal(u, u.listxattr("d"), "trusted.overlay.opaque")
		// In the layer the name is escaped, and marks nothing.
		u.upper(`dir d trusted.overlay.overlay.opaque="y"`)
		u.remount()
		equal(u, u.list("d"), "f low")
		u.ok(u.removexattr("d", "trusted.overlay.opaque"))
		u.upper("dir d")
	}},
	{"names that only resemble the marks", func(u *union) {
		const attrs = `trusted.overlayfs="1" trusted.overlay="2" user.overlay.opaque="y" user.overlayx="3"`
		u.mount("dir d "+attrs, "dir d\nfile d/low")
		u.merged("dir d " + attrs + "\nfile d/low")
		u.ok(u.setxattr("d", "user.overlay.redirect", "/x"))
		u.ok(u.setxattr("d", "trusted.overlays", "z"))
		u.upper("dir d " + attrs + ` trusted.overlays="z" user.overlay.redirect="/x"`)
	}},
	{"names that are not allowed", func(u *union) {
		u.mount("file f")
		u.fails(unix.EOPNOTSUPP, u.setxattr("f", "noprefix", "1"))
		_, err := u.getxattr("f", "noprefix")
		u.fails(unix.EOPNOTSUPP, err)
		u.fails(unix.ERANGE, u.setxattr("f", "user."+long(300), "1"))
		u.ok(u.setxattr("f", "user."+long(250), "1"))
	}},
	{"trusted names are for root", func(u *union) {
		u.mount(`file f mode=0666 trusted.x="1" user.y="2"`)
		u.as(user{uid: nobody, gid: nobody}, func() {
			equal(u, u.listxattr("f"), "user.y")
			_, err := u.getxattr("f", "trusted.x")
			u.fails(unix.ENODATA, err)
			u.fails(unix.EPERM, u.setxattr("f", "trusted.x", "2"))
			u.fails(unix.EPERM, u.setxattr("f", "trusted.overlay.opaque", "y"))
			u.ok(u.setxattr("f", "user.y", "3"))
		})
		u.upper(`file f mode=0666 trusted.x="1" user.y="3"`)
	}},
	{"of an open file, also after it was removed", func(u *union) {
		u.mount(`file f user.a="1"`)
		fd := u.open("f", unix.O_RDWR, 0)
		u.ok(unix.Fsetxattr(fd, "user.b", []byte("2"), 0))
		u.ok(u.unlink("f"))
		b := make([]byte, 10)
		n, err := unix.Fgetxattr(fd, "user.b", b)
		u.ok(err)
		equal(u, string(b[:n]), "2")
	}},
}
