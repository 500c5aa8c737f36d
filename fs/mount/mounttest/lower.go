package mounttest

import (
	"os"
	"time"
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
