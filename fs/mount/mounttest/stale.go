package mounttest

import (
	"strings"

	"golang.org/x/sys/unix"
)

// stale: a descriptor from before copy-up must see what is written after it, and no page of the lower file may come
// into the upper one. A union that fails here corrupts databases.
var stale = []check{
	{"read, append elsewhere, read, write a byte", func(u *union) {
		u.mount("file f size=8192 data=0:\"lower\" data=8187:\"tail.\"")
		ro := u.open("f", unix.O_RDONLY, 0)
		lower := u.readFD(ro)
		equal(u, len(lower), 8192)
		u.append("f", "appended")
		equal(u, u.readFD(ro), lower+"appended")
		rw := u.open("f", unix.O_RDWR, 0)
		u.writeAt(rw, 8200, "!")
		want := lower + "appended!"
		equal(u, u.readFD(ro), want)
		equal(u, u.readFD(rw), want)
		u.remount()
		equal(u, u.read("f"), want)
	}},
	{"overwritten in the middle of what was read", func(u *union) {
		u.mount("file f size=16384 data=0:\"lower\"")
		ro := u.open("f", unix.O_RDONLY, 0)
		u.readFD(ro)
		rw := u.open("f", unix.O_RDWR, 0)
		u.readFD(rw)
		u.writeAt(rw, 5000, "new")
		equal(u, u.readFD(ro)[5000:5003], "new")
		u.writeAt(rw, 9000, "x")
		u.remount()
		got := u.read("f")
		equal(u, got[:5]+got[5000:5003]+got[9000:9001], "lowernewx")
		equal(u, strings.Count(got, "\x00"), 16384-9)
	}},
	{"truncated and grown", func(u *union) {
		u.mount("file f size=8192 data=0:\"lower\" data=4096:\"page two\"")
		ro := u.open("f", unix.O_RDONLY, 0)
		u.readFD(ro)
		u.ok(u.truncate("f", 3))
		equal(u, u.readFD(ro), "low")
		u.ok(u.truncate("f", 8192))
		want := "low" + strings.Repeat("\x00", 8189)
		equal(u, u.readFD(ro), want)
		equal(u, u.fstat(ro).Size, 8192)
		u.remount()
		equal(u, u.read("f"), want)
	}},
	{"read by a mapping first", func(u *union) {
		u.mount("file f size=8192 data=0:\"lower\" data=4096:\"page two\"")
		ro := u.open("f", unix.O_RDONLY, 0)
		m := u.mmap(ro, 8192, unix.PROT_READ, unix.MAP_PRIVATE)
		equal(u, string(m[:5])+string(m[4096:4100]), "lowerpage")
		u.ok(unix.Munmap(m))
		rw := u.open("f", unix.O_RDWR, 0)
		u.writeAt(rw, 4096, "PAGE")
		u.writeAt(rw, 0, "L")
		equal(u, u.readFD(ro)[:5], "Lower")
		equal(u, u.readFD(ro)[4096:4104], "PAGE two")
	}},
	{"a reader that goes on while another process writes", func(u *union) {
		u.mount(`file f "0"`)
		ro := u.open("f", unix.O_RDONLY, 0)
		want := "0"
		for i := range 30 {
			equal(u, u.readFD(ro), want)
			more := strings.Repeat(string(rune('a'+i%26)), 700)
			u.append("f", more)
			want += more
		}
		equal(u, u.readFD(ro), want)
		u.remount()
		equal(u, u.read("f"), want)
	}},
	{"replaced by rename", func(u *union) {
		u.mount(`file f "old"`)
		ro := u.open("f", unix.O_RDONLY, 0)
		equal(u, u.readFD(ro), "old")
		u.write("f.new", "new")
		u.ok(u.rename("f.new", "f"))
		equal(u, u.readFD(ro), "old")
		equal(u, u.read("f"), "new")
		u.append("f", "er")
		equal(u, u.readFD(ro), "old")
	}},
}
