package mounttest

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// live: what people do in lower layers on the host is seen in the union, which the kernel leaves undefined; see
// [LiveLower]. Each looks before the change, so that there is something to be remembered.
var live = []check{
	{"a new name, after it was looked up in vain", func(u *union) {
		u.mount("dir d\nfile d/f")
		u.editsLower = true
		u.missing("d/new")
		u.missing("d/newdir/x")
		equal(u, u.list("d"), "f")
		u.edit("d/new", "new")
		u.ok(os.Mkdir(u.low(0, "d/newdir"), 0o755))
		u.edit("d/newdir/x", "x")
		u.soon(func() bool { _, err := u.lstat("d/new"); return err == nil })
		u.soon(func() bool { _, err := u.lstat("d/newdir/x"); return err == nil })
		equal(u, u.read("d/new"), "new")
		equal(u, u.list("d"), "f new newdir")
	}},
	{"a name that is gone", func(u *union) {
		u.mount("dir d\nfile d/f\nfile d/g")
		u.editsLower = true
		u.read("d/f")
		equal(u, u.list("d"), "f g")
		u.ok(os.Remove(u.low(0, "d/f")))
		u.soon(func() bool { _, err := u.lstat("d/f"); return err == unix.ENOENT })
		equal(u, u.list("d"), "g")
	}},
	{"a renamed file", func(u *union) {
		u.mount("dir d\nfile d/f \"f\"\ndir e")
		u.editsLower = true
		u.stat("d/f")
		u.missing("e/g")
		u.ok(os.Rename(u.low(0, "d/f"), u.low(0, "e/g")))
		u.soon(func() bool { _, err := u.lstat("d/f"); return err == unix.ENOENT })
		u.soon(func() bool { _, err := u.lstat("e/g"); return err == nil })
		equal(u, u.read("e/g"), "f")
	}},
	{"a file replaced by another, as editors do", func(u *union) {
		u.mount(`file f "old"`)
		u.editsLower = true
		equal(u, u.read("f"), "old")
		u.edit("f.tmp", "new one")
		u.ok(os.Rename(u.low(0, "f.tmp"), u.low(0, "f")))
		u.soon(func() bool { return u.read("f") == "new one" })
		equal(u, u.stat("f").Size, int64(len("new one")))
	}},
	{"a changed mode", func(u *union) {
		u.mount("file f")
		u.editsLower = true
		u.stat("f")
		u.ok(os.Chmod(u.low(0, "f"), 0o600))
		u.soon(func() bool { return u.stat("f").Mode&0o777 == 0o600 })
	}},
	{"a name that a higher layer covers meanwhile", func(u *union) {
		u.mount("dir d", "dir d\nfile d/f \"below\"")
		u.editsLower = true
		equal(u, u.read("d/f"), "below")
		u.ok(os.WriteFile(u.low(0, "d/f"), []byte("above"), 0o644))
		u.soon(func() bool { return u.read("d/f") == "above" })
	}},
	{"a directory that a higher layer gets too", func(u *union) {
		u.mount("file x", "dir d\nfile d/f \"below\"")
		u.editsLower = true
		equal(u, u.list("d"), "f")
		u.ok(os.Mkdir(u.low(0, "d"), 0o755))
		u.edit("d/g", "above")
		u.soon(func() bool { return u.list("d") == "f g" })
		equal(u, u.read("d/g"), "above")
	}},
	{"content and size of a file that is open", func(u *union) {
		u.mount(`file f "old"`)
		u.editsLower = true
		fd := u.open("f", unix.O_RDONLY, 0)
		equal(u, u.readFD(fd), "old")
		equal(u, u.fstat(fd).Size, 3)
		u.edit("f", "new, longer")
		u.soon(func() bool { return u.fstat(fd).Size == int64(len("new, longer")) })
		u.soon(func() bool { return u.readFD(fd) == "new, longer" })
	}},
	{"a file that is deleted while it is open", func(u *union) {
		u.mount(`file f "old"`)
		u.editsLower = true
		fd := u.open("f", unix.O_RDONLY, 0)
		equal(u, u.readFD(fd), "old")
		equal(u, u.fstat(fd).Nlink, 1)
		u.ok(os.Remove(u.low(0, "f")))
		u.soon(func() bool { return u.fstat(fd).Nlink == 0 })
		equal(u, u.readFD(fd), "old")
	}},
	{"a file that is replaced after it was opened and before it is read", func(u *union) {
		u.mount(`file f "old"`)
		u.editsLower = true
		fd := u.open("f", unix.O_RDONLY, 0)
		u.edit("f.tmp", "new one")
		u.ok(os.Rename(u.low(0, "f.tmp"), u.low(0, "f")))
		u.soon(func() bool { return u.read("f") == "new one" })
		b := make([]byte, 16)
		if n, err := unix.Pread(fd, b, 0); err == nil { // or it is gone: what is read is never the other file
			equal(u, string(b[:n]), "old")
		} else {
			equal(u, err, error(unix.ENOENT))
		}
	}},
	{"a file of several names, changed through another one", func(u *union) {
		u.layers("file f \"old\"\ndir d")
		u.editsLower = true
		u.ok(os.Link(u.low(0, "f"), u.low(0, "d/g")))
		u.remount()
		equal(u, u.read("f"), "old")
		u.edit("d/g", "new one")
		u.soon(func() bool { return u.read("f") == "new one" })
		u.ok(os.Chmod(u.low(0, "d/g"), 0o600))
		u.soon(func() bool { return u.stat("f").Mode&0o777 == 0o600 })
	}},
	{"a renamed directory", func(u *union) {
		u.mount("dir d\nfile d/f \"f\"")
		u.editsLower = true
		equal(u, u.read("d/f"), "f")
		u.missing("e")
		u.ok(os.Rename(u.low(0, "d"), u.low(0, "e")))
		u.soon(func() bool { _, err := u.lstat("d"); return err == unix.ENOENT })
		u.soon(func() bool { _, err := u.lstat("e/f"); return err == nil })
		u.edit("e/g", "g")
		u.soon(func() bool { return u.list("e") == "f g" })
	}},
	{"a directory that is deleted and made again", func(u *union) {
		u.mount("dir d\nfile d/f \"f\"", "dir d\nfile d/below")
		u.editsLower = true
		equal(u, u.list("d"), "below f")
		u.ok(os.RemoveAll(u.low(0, "d")))
		u.soon(func() bool { return u.list("d") == "below" })
		u.ok(os.Mkdir(u.low(0, "d"), 0o755))
		u.edit("d/again", "")
		u.soon(func() bool { return u.list("d") == "again below" })
		u.ok(os.Remove(u.low(1, "d/below")))
		u.soon(func() bool { return u.list("d") == "again" })
	}},
	{"a whiteout in a higher layer", func(u *union) {
		u.mount("dir d", "dir d\nfile d/f")
		u.editsLower = true
		u.stat("d/f")
		u.ok(unix.Mknod(u.low(0, "d/f"), unix.S_IFCHR, 0))
		u.soon(func() bool { _, err := u.lstat("d/f"); return err == unix.ENOENT })
		u.ok(os.Remove(u.low(0, "d/f")))
		u.soon(func() bool { _, err := u.lstat("d/f"); return err == nil })
	}},
	{"a symbolic link that leads elsewhere, again and again", func(u *union) {
		u.mount("symlink s -> 0")
		u.editsLower = true
		for i := range 10 {
			u.soon(func() bool { at, err := os.Readlink(u.path("s")); return err == nil && at == strconv.Itoa(i) })
			u.ok(os.Remove(u.low(0, "s"))) // so that the next one may have its inode number
			u.ok(os.Symlink(strconv.Itoa(i+1), u.low(0, "s")))
		}
	}},
	{"the time of a directory in which something is made", func(u *union) {
		u.mount("dir d")
		u.editsLower = true
		before := u.stat("d").Mtim
		u.edit("d/f", "")
		u.soon(func() bool { return u.stat("d").Mtim != before })
	}},
	{"many names at once", func(u *union) {
		u.mount("dir d")
		u.editsLower = true
		const many = 1000
		name := func(i int) string { return "d/" + strconv.Itoa(i) }
		for i := range many {
			u.missing(name(i))
		}
		for i := range many {
			u.edit(name(i), "")
		}
		u.soon(func() bool { return len(strings.Fields(u.list("d"))) == many })
		for i := range many {
			u.soon(func() bool { _, err := u.lstat(name(i)); return err == nil })
		}
	}},
	{"not if the user has promised that nothing changes", func(u *union) {
		u.layers("dir d")
		u.spec.Options.LowerImmutable = true
		u.remount()
		u.editsLower = true
		u.missing("d/f")
		u.edit("d/f", "")
		time.Sleep(window)
		u.missing("d/f")
	}},
}
