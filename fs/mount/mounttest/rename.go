package mounttest

import (
	"golang.org/x/sys/unix"
)

var rename = []check{
	{"an upper file", func(u *union) {
		u.onUpper = `file a "1"`
		u.mount("dir d")
		u.ok(u.rename("a", "b"))
		u.ok(u.rename("b", "d/c"))
		u.upper("dir d\nfile d/c \"1\"")
	}},
	{"a lower file", func(u *union) {
		u.mount(`file a "1" mode=0640 owner=1:2 user.x="1"`)
		u.ok(u.rename("a", "b"))
		u.missing("a")
		u.merged(`file b "1" mode=0640 owner=1:2 user.x="1"`)
		u.upper("whiteout a\n" + `file b "1" mode=0640 owner=1:2 user.x="1"`)
		u.remount()
		u.missing("a")
	}},
	{"lower objects that are not files", func(u *union) {
		u.mount("symlink s -> x\nfifo p\nchar c 1:3\nsocket k\ndir d")
		for _, name := range []string{"s", "p", "c", "k"} {
			u.ok(u.rename(name, "d/"+name))
		}
		u.merged("dir d\nsymlink d/s -> x\nfifo d/p\nchar d/c 1:3\nsocket d/k")
		u.upper("whiteout s\nwhiteout p\nwhiteout c\nwhiteout k\ndir d\nsymlink d/s -> x\nfifo d/p\nchar d/c 1:3\nsocket d/k")
	}},
	{"over a lower file", func(u *union) {
		u.onUpper = `file up "up"`
		u.mount("file a \"a\"\nfile b \"b\"\nfile c \"c\"")
		u.ok(u.rename("up", "c"))
		u.ok(u.rename("a", "b"))
		u.merged("file b \"a\"\nfile c \"up\"")
		u.upper("whiteout a\nfile b \"a\"\nfile c \"up\"")
	}},
	{"onto a whiteout", func(u *union) {
		u.onUpper = "whiteout gone\nfile up \"up\""
		u.mount("file gone\nfile low \"low\"")
		u.ok(u.rename("up", "gone"))
		equal(u, u.read("gone"), "up")
		u.ok(u.unlink("gone"))
		u.ok(u.rename("low", "gone"))
		u.merged(`file gone "low"`)
		u.upper("file gone \"low\"\nwhiteout low")
	}},
	{"there and back", func(u *union) {
		u.mount("file a \"1\"\ndir d")
		u.ok(u.rename("a", "d/b"))
		u.ok(u.rename("d/b", "a"))
		u.merged("file a \"1\"\ndir d")
		u.missing("d/b")
		u.ok(u.unlink("a"))
		u.missing("a")
	}},
	{"an open file follows", func(u *union) {
		u.mount("file a \"1\"\ndir d")
		fd := u.open("a", unix.O_RDONLY, 0)
		u.ok(u.rename("a", "d/b"))
		u.append("d/b", "2")
		equal(u, u.readFD(fd), "12")
		equal(u, u.fstat(fd).Ino, u.stat("d/b").Ino)
	}},
	{"NOREPLACE", func(u *union) {
		u.onUpper = "file up \"u\"\nwhiteout gone"
		u.mount("file low \"l\"\ndir d\nfile gone\nsymlink s -> none")
		for _, to := range []string{"low", "d", "s", "up"} {
			u.fails(unix.EEXIST, u.rename2("up", to, unix.RENAME_NOREPLACE))
		}
		u.fails(unix.EEXIST, u.rename2("low", "up", unix.RENAME_NOREPLACE))
		u.ok(u.rename2("low", "new", unix.RENAME_NOREPLACE))
		u.ok(u.rename2("up", "gone", unix.RENAME_NOREPLACE))
		u.merged("file new \"l\"\ndir d\nfile gone \"u\"\nsymlink s -> none")
	}},
	{"EXCHANGE of files", func(u *union) {
		u.onUpper = `file up "u"`
		u.mount("file a \"a\"\nfile b \"b\"\nsymlink s -> x")
		u.ok(u.rename2("a", "b", unix.RENAME_EXCHANGE))
		u.ok(u.rename2("up", "s", unix.RENAME_EXCHANGE))
		u.merged("file a \"b\"\nfile b \"a\"\nfile s \"u\"\nsymlink up -> x")
		u.upper("file a \"b\"\nfile b \"a\"\nfile s \"u\"\nsymlink up -> x")
		u.fails(unix.ENOENT, u.rename2("a", "none", unix.RENAME_EXCHANGE))
	}},
	{"EXCHANGE of a file and an upper directory", func(u *union) {
		u.onUpper = "dir d\nfile d/x"
		u.mount(`file f "f"`)
		u.ok(u.rename2("f", "d", unix.RENAME_EXCHANGE))
		u.merged("file d \"f\"\ndir f\nfile f/x")
		u.remount()
		u.merged("file d \"f\"\ndir f\nfile f/x")
	}},
	{"EXCHANGE of upper directories under merged ones", func(u *union) {
		u.onUpper = "dir p\ndir p/a\nfile p/a/1\ndir q\ndir q/b\nfile q/b/2"
		u.mount("dir p\ndir q")
		u.ok(u.rename2("p/a", "q/b", unix.RENAME_EXCHANGE))
		const want = "dir p\ndir p/a\nfile p/a/2\ndir q\ndir q/b\nfile q/b/1"
		u.merged(want)
		u.remount()
		u.merged(want)
	}},
	{"WHITEOUT is not for users", func(u *union) {
		u.onUpper = "file a"
		u.mount("file b")
		u.fails(unix.EINVAL, u.rename2("a", "c", unix.RENAME_WHITEOUT))
		u.fails(unix.EINVAL, u.rename2("a", "b", unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE))
		u.merged("file a\nfile b")
	}},
	{"an upper directory", func(u *union) {
		u.onUpper = "dir a\nfile a/x\ndir a/s\nfile a/s/y"
		u.mount("dir d")
		u.ok(u.rename("a", "b"))
		u.merged("dir b\nfile b/x\ndir b/s\nfile b/s/y\ndir d")
		u.ok(u.rename("b", "d/c"))
		u.missing("b")
		equal(u, u.list("d/c/s"), "y")
		u.remount()
		u.merged("dir d\ndir d/c\nfile d/c/x\ndir d/c/s\nfile d/c/s/y")
	}},
	{"an upper directory to where a lower one was", func(u *union) {
		u.mount("dir d\nfile d/old")
		u.ok(u.unlink("d/old"))
		u.ok(u.rmdir("d"))
		u.ok(u.mkdir("new"))
		u.write("new/x", "1")
		u.ok(u.rename("new", "d"))
		u.merged("dir d\nfile d/x \"1\"")
		u.remount()
		u.merged("dir d\nfile d/x \"1\"")
	}},
	{"an upper directory over an empty one of a lower layer", func(u *union) {
		u.onUpper = "dir new\nfile new/x"
		u.mount("dir d")
		u.ok(u.rename("new", "d"))
		u.merged("dir d\nfile d/x")
		u.remount()
		u.merged("dir d\nfile d/x")
	}},
	{"an upper directory over a merged one that is empty", func(u *union) {
		u.onUpper = "dir new\nfile new/x\ndir d\nwhiteout d/old"
		u.mount("dir d\nfile d/old")
		u.ok(u.rename("new", "d"))
		u.merged("dir d\nfile d/x")
		u.remount()
		u.merged("dir d\nfile d/x")
	}},
	{"a directory over one that is not empty", func(u *union) {
		u.onUpper = "dir new"
		u.mount("dir d\nfile d/x\nfile f")
		u.fails(unix.ENOTEMPTY, u.rename("new", "d"))
		u.fails(unix.ENOTDIR, u.rename("new", "f"))
		u.fails(unix.EISDIR, u.rename("f", "d"))
		u.fails(unix.EISDIR, u.rename("f", "new"))
		u.merged("dir new\ndir d\nfile d/x\nfile f")
	}},
	{"a lower or merged directory is EXDEV", func(u *union) {
		u.onUpper = "dir both\nfile both/u"
		u.mount("dir low\nfile low/x\ndir both\nfile both/l\ndir to")
		u.fails(unix.EXDEV, u.rename("low", "new"))
		u.fails(unix.EXDEV, u.rename("both", "new"))
		u.fails(unix.EXDEV, u.rename("low", "to"))
		u.merged("dir low\nfile low/x\ndir both\nfile both/u\nfile both/l\ndir to")
	}},
	{"a directory into itself", func(u *union) {
		u.onUpper = "dir a\ndir a/b"
		u.mount("file x")
		u.fails(unix.EINVAL, u.rename("a", "a/b/c"))
		u.fails(unix.ENOTEMPTY, u.rename("a/b", "a"))
		u.merged("dir a\ndir a/b\nfile x")
	}},
	{"what is not there", func(u *union) {
		u.onUpper = "whiteout gone"
		u.mount("file gone\nfile f")
		u.fails(unix.ENOENT, u.rename("none", "x"))
		u.fails(unix.ENOENT, u.rename("gone", "x"))
		u.fails(unix.ENOENT, u.rename("f", "gone/x"))
		u.fails(unix.ENOENT, u.rename2("f", "gone", unix.RENAME_EXCHANGE))
		u.merged("file f")
	}},
	{"a name of the same file is nothing to do", func(u *union) {
		u.mount("dir d")
		u.write("a", "1")
		u.ok(u.link("a", "b"))
		u.ok(u.rename("a", "b"))
		u.merged("file a \"1\" nlink=2\nhardlink b -> a\ndir d")
		u.ok(u.rename("a", "a"))
		equal(u, u.read("a"), "1")
	}},
	{"a replaced file that is open lives on", func(u *union) {
		u.mount("file a \"a\"\nfile b \"b\"")
		fd := u.open("b", unix.O_RDONLY, 0)
		u.ok(u.rename("a", "b"))
		equal(u, u.readFD(fd), "b")
		equal(u, u.read("b"), "a")
	}},
	{"children are found under the new name at once", func(u *union) {
		u.onUpper = "dir a\nfile a/x \"1\""
		u.mount("file f")
		u.stat("a/x")
		u.missing("b")
		u.ok(u.rename("a", "b"))
		equal(u, u.read("b/x"), "1")
		u.missing("a")
		u.ok(u.mkdir("a"))
		u.missing("a/x")
	}},
	{"many renames of one tree survive a remount", func(u *union) {
		u.mount("dir d\nfile d/f \"f\"\ndir d/s")
		u.ok(u.mkdir("n"))
		u.ok(u.mkdir("n/a"))
		u.write("n/a/1", "1")
		u.ok(u.rename("d/f", "n/a/f"))
		u.ok(u.rename("n/a", "d/s/a"))
		u.ok(u.rename("d/s/a/f", "d/f"))
		u.ok(u.rename("n", "d/s/a/n"))
		u.ok(u.rename("d/s/a/n", "d/s/n"))
		const want = "dir d\nfile d/f \"f\"\ndir d/s\ndir d/s/a\nfile d/s/a/1 \"1\"\ndir d/s/n"
		u.merged(want)
		u.remount()
		u.merged(want)
	}},
}
