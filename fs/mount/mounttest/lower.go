package mounttest

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lowerEdit: people edit a lower layer on the host and look at the result in the union. That the content of a file
// is seen holds on the kernel too, since the inode stays the same.
var lowerEdit = []check{
	{"an edited lower file is seen, until it is copied up", func(u *union) {
		u.mount(`file b "one"`)
		u.editsLower = true
		equal(u, u.read("b"), "one")
		u.edit("b", "two, longer")
		u.soon(func() bool { return u.read("b") == "two, longer" })
		equal(u, u.stat("b").Size, int64(len("two, longer")))
		u.write("b", "through the union")
		u.compareLayer(u.spec.Lower[0], `file b "two, longer"`)
		u.upper(`file b "through the union"`)
		u.edit("b", "three")
		time.Sleep(window)
		equal(u, u.read("b"), "through the union")
	}},
	{"two unions over one layer", func(u *union) {
		u.mount(`file b "one"`)
		u.editsLower = true
		other := &union{TB: u.TB, server: u.server, editsLower: true}
		other.layers()
		other.spec.Lower = u.spec.Lower
		other.remount()
		defer other.finish()
		u.write("b", "mine")
		other.write("new", "theirs")
		equal(u, other.read("b"), "one")
		u.missing("new")
		u.edit("b", "two")
		u.soon(func() bool { return other.read("b") == "two" })
		equal(u, u.read("b"), "mine")
	}},
}

// live: more of the same, which the kernel leaves undefined; see [LiveLower].
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
}

// window is within what time a change of a lower layer is seen.
const window = 100 * time.Millisecond

// soon ends the check if cond does not hold within the window.
func (u *union) soon(cond func() bool) {
	u.Helper()
	for start := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(start) > window {
			u.Fatalf("a change of a lower layer is not seen within %v", window)
		}
	}
}

// edit writes a file of the topmost lower layer in place, as a shell does.
func (u *union) edit(name, content string) {
	u.Helper()
	u.ok(os.WriteFile(u.low(0, name), []byte(content), 0o644))
}
