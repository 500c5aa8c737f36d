package mounttest

import (
	"golang.org/x/sys/unix"
)

var link = []check{
	{"of a file that has its metadata alone in the upper", func(u *union) {
		u.layers("file f \"data\"\ndir d")
		u.spec.Options.Metacopy = true
		u.remount()
		u.ok(u.chmod("f", 0o600))
		u.ok(u.link("f", "d/g"))
		u.upper("dir d\nfile d/g \"\\x00\\x00\\x00\\x00\" mode=0600 redirect=/f metacopy nlink=2\nhardlink f -> d/g")
		u.ok(u.rename("d/g", "d/h"))
		u.ok(u.unlink("f"))
		u.remount()
		equal(u, u.read("d/h"), "data")
		u.append("d/h", "!")
		u.remount()
		equal(u, u.read("d/h"), "data!")
	}},
	{"of an upper file", func(u *union) {
		u.mount("dir d")
		u.write("a", "1")
		u.ok(u.link("a", "d/b"))
		equal(u, u.stat("a").Nlink, 2)
		equal(u, u.stat("a").Ino, u.stat("d/b").Ino)
		u.append("d/b", "2")
		equal(u, u.read("a"), "12")
		u.ok(u.unlink("a"))
		equal(u, u.stat("d/b").Nlink, 1)
		u.upper("dir d\nfile d/b \"12\"")
	}},
	{"of a lower file", func(u *union) {
		u.mount(`file a "1" mode=0600 owner=1:2`)
		u.ok(u.link("a", "b"))
		u.append("b", "2")
		equal(u, u.read("a"), "12")
		const want = "file a \"12\" mode=0600 owner=1:2 nlink=2\nhardlink b -> a"
		u.merged(want)
		u.upper(want)
		u.remount()
		u.merged(want)
		u.ok(u.unlink("a"))
		u.upper("whiteout a\nfile b \"12\" mode=0600 owner=1:2")
	}},
	{"of what is no file", func(u *union) {
		u.mount("symlink s -> none\nfifo p\nchar c 1:3\ndir d")
		for _, name := range []string{"s", "p", "c"} {
			u.ok(u.link(name, name+"2"))
			equal(u, u.stat(name).Nlink, 2)
		}
		u.fails(unix.EPERM, u.link("d", "d2"))
		u.merged("symlink s -> none nlink=2\nhardlink s2 -> s\nfifo p nlink=2\nhardlink p2 -> p\nchar c 1:3 nlink=2\nhardlink c2 -> c\ndir d")
	}},
	{"to a name that is taken, or cannot be", func(u *union) {
		u.onUpper = "file up"
		u.mount("file a\nfile b\ndir d")
		for _, name := range []string{"b", "up", "d", "a"} {
			u.fails(unix.EEXIST, u.link("a", name))
		}
		u.fails(unix.ENOENT, u.link("none", "x"))
		u.fails(unix.ENOENT, u.link("a", "none/x"))
		u.fails(unix.ENOTDIR, u.link("a", "b/x"))
	}},
	{"through a descriptor", func(u *union) {
		u.mount(`file a "1"`)
		fd := u.open("a", unix.O_RDONLY, 0)
		u.ok(unix.Linkat(fd, "", unix.AT_FDCWD, u.path("b"), unix.AT_EMPTY_PATH))
		u.append("a", "2")
		equal(u, u.read("b"), "12")
	}},
	{"open descriptors see what is written through another name", func(u *union) {
		u.mount(`file a "1"`)
		fd := u.open("a", unix.O_RDONLY, 0)
		u.ok(u.link("a", "b"))
		u.append("b", "2")
		equal(u, u.readFD(fd), "12")
		equal(u, u.fstat(fd).Nlink, 2)
	}},
	{"counts follow", func(u *union) {
		u.mount("dir d")
		u.write("a", "")
		fd := u.open("a", unix.O_RDONLY, 0)
		for i, name := range []string{"b", "c", "d/e"} {
			u.ok(u.link("a", name))
			equal(u, uint64(u.fstat(fd).Nlink), uint64(i+2))
		}
		for i, name := range []string{"a", "d/e", "b", "c"} {
			u.ok(u.unlink(name))
			equal(u, uint64(u.fstat(fd).Nlink), uint64(3-i))
		}
	}},
	{"replaced by rename", func(u *union) {
		u.mount("dir d")
		u.write("a", "a")
		u.ok(u.link("a", "b"))
		u.write("c", "c")
		u.ok(u.rename("c", "b"))
		equal(u, u.stat("a").Nlink, 1)
		u.merged("file a \"a\"\nfile b \"c\"\ndir d")
	}},
}

// hardlinks: what has several names in a lower layer. Copy-up gives the one name that is written through a file of
// its own, as overlayfs does with index=off.
var hardlinks = []check{
	{"lower links are one file", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a\ndir d\nhardlink d/c -> a")
		equal(u, u.stat("a").Nlink, 3)
		equal(u, u.stat("b").Ino, u.stat("a").Ino)
		equal(u, u.stat("d/c").Ino, u.stat("a").Ino)
	}},
	{"copy-up breaks them", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		u.append("a", "2")
		equal(u, u.read("a"), "12")
		equal(u, u.read("b"), "1")
		equal(u, u.stat("a").Nlink, 1)
		u.upper(`file a "12"`)
		u.remount()
		equal(u, u.read("a"), "12")
		equal(u, u.read("b"), "1")
		u.append("b", "3")
		equal(u, u.read("a"), "12")
		u.upper("file a \"12\"\nfile b \"13\"")
	}},
	{"opening one for writing breaks it off at once", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		equal(u, u.stat("a").Nlink, 2)
		fd := u.open("a", unix.O_WRONLY, 0)
		equal(u, u.fstat(fd).Nlink, 1)
		equal(u, u.stat("a").Nlink, 1)
		equal(u, u.stat("b").Nlink, 2)
	}},
	{"removing one leaves the others", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		u.ok(u.unlink("a"))
		u.missing("a")
		equal(u, u.read("b"), "1")
		u.upper("whiteout a")
	}},
	{"renaming one leaves the others", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		u.ok(u.rename("a", "c"))
		equal(u, u.read("b"), "1")
		u.append("c", "2")
		equal(u, u.read("b"), "1")
		u.upper("whiteout a\nfile c \"12\"")
	}},
	{"linking one joins the new name only", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		u.ok(u.link("a", "c"))
		u.append("c", "2")
		equal(u, u.read("a"), "12")
		equal(u, u.read("b"), "1")
		equal(u, u.stat("a").Nlink, 2)
	}},
	{"links of the upper layer from before", func(u *union) {
		u.onUpper = "file a \"1\"\nhardlink b -> a"
		u.mount("file x")
		u.append("a", "2")
		equal(u, u.read("b"), "12")
		equal(u, u.stat("a").Ino, u.stat("b").Ino)
		equal(u, u.stat("a").Nlink, 2)
	}},
	{"links in different layers are different files", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a", "file c \"2\"\nhardlink d -> c")
		u.append("b", "+")
		u.merged("file a \"1\" nlink=2\nfile b \"1+\"\nfile c \"2\" nlink=2\nhardlink d -> c")
	}},
	{"both names written while open", func(u *union) {
		u.mount("file a \"1\"\nhardlink b -> a")
		a := u.open("a", unix.O_RDWR, 0)
		b := u.open("b", unix.O_RDWR, 0)
		u.writeAt(a, 0, "A")
		u.writeAt(b, 0, "B")
		equal(u, u.readFD(a), "A")
		equal(u, u.readFD(b), "B")
		u.upper("file a \"A\"\nfile b \"B\"")
	}},
}
