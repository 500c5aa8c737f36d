package mounttest

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountover: the union is mounted where one of its own layers is, and whoever serves it must not meet itself.
var mountover = []check{
	{"on the lower layer", func(u *union) {
		u.layers("file f \"low\"\ndir d\nfile d/g", "file h")
		u.dir = u.spec.Lower[0]
		u.before = nil // what is there now is the union
		u.remount()
		u.append("f", "+")
		u.ok(u.unlink("d/g"))
		u.write("d/new", "n")
		u.merged("file f \"low+\"\ndir d\nfile d/new \"n\"\nfile h")
		u.upper("file f \"low+\"\ndir d\nfile d/new \"n\"\nwhiteout d/g")
		u.unmount()
		u.compareLayer(u.spec.Lower[0], "file f \"low\"\ndir d\nfile d/g")
	}},
	{"on the upper layer", func(u *union) {
		u.onUpper = `file up "u"`
		u.layers(`file f "low"`)
		u.dir = u.spec.Upper
		u.remount()
		u.append("f", "+")
		u.append("up", "+")
		u.merged("file f \"low+\"\nfile up \"u+\"")
		u.unmount()
		u.upper("file f \"low+\"\nfile up \"u+\"")
	}},
	{"above all layers", func(u *union) {
		u.layers("file f \"low\"\ndir d")
		u.dir = filepath.Dir(u.spec.Upper)
		u.remount()
		u.append("f", "+")
		u.write("d/x", "x")
		u.merged("file f \"low+\"\ndir d\nfile d/x \"x\"")
		u.unmount()
		u.upper("file f \"low+\"\ndir d\nfile d/x \"x\"")
	}},
	{"inside the lower layer", func(u *union) {
		u.layers("file f \"low\"\ndir m")
		u.dir = u.low(0, "m")
		u.remount()
		u.append("f", "+")
		u.ok(u.mkdir("m/sub"))
		equal(u, u.list("."), "f m")
		equal(u, u.list("m"), "sub") // not the union again
		u.unmount()
		u.upper("file f \"low+\"\ndir m\ndir m/sub")
	}},
	{"what is mounted in a layer is not seen", func(u *union) {
		u.layers("file f\ndir m\nfile m/below \"b\"")
		sub := u.low(0, "m")
		u.ok(unix.Mount("unionfsd-test", sub, "tmpfs", 0, ""))
		defer func() { u.ok(unix.Unmount(sub, unix.MNT_DETACH)) }()
		u.ok(os.WriteFile(sub+"/above", nil, 0o644))
		u.remount()
		equal(u, u.list("m"), "below")
		u.append("m/below", "+")
		u.upper("dir m\nfile m/below \"b+\"")
		u.unmount()
	}},
	{"a union as a layer of a union", func(u *union) {
		u.mount("file f \"low\"\ndir d\nfile d/a\nfile d/b", "file g")
		u.ok(u.unlink("d/a"))
		u.append("f", "+")
		inner, want := u.dir, "file f \"low+\"\ndir d\nfile d/b\nfile g\n"
		outer := &union{TB: u.TB, server: u.server}
		outer.layers("file top")
		outer.spec.Lower = append(outer.spec.Lower, inner)
		outer.remount()
		defer outer.finish()
		outer.merged(want + "file top")
		outer.append("d/b", "x")
		outer.ok(outer.unlink("g"))
		outer.upper("dir d\nfile d/b \"x\"\nwhiteout g")
		u.merged(want)
	}},
	{"busy while a file is open", func(u *union) {
		u.mount("file f")
		fd := u.open("f", unix.O_RDONLY, 0)
		u.fails(unix.EBUSY, unix.Unmount(u.dir, 0))
		u.close(fd)
	}},
}
