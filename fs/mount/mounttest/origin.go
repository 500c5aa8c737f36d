package mounttest

import (
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// isImpure reports whether a directory of the upper layer says that its entries may be copies of lower objects.
func (u *union) isImpure(name string) bool {
	var b [1]byte
	n, err := unix.Getxattr(u.up(name), "trusted.overlay.impure", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// copyAll copies a file or directory of the upper layer with everything, marks of the union among it.
func (u *union) copyAll(from, to string) {
	u.Helper()
	if out, err := exec.Command("cp", "-a", u.up(from), u.up(to)).CombinedOutput(); err != nil {
		u.Fatalf("cp -a: %v: %s", err, out)
	}
}

// notLike ends the check if two names that are different files seem to be one. The kernel refuses the second.
func (u *union) notLike(a, b string) {
	u.Helper()
	first := u.stat(a)
	second, err := u.lstat(b)
	if err != nil {
		u.fails(unix.ESTALE, err)
	} else if first.Ino == second.Ino && first.Dev == second.Dev {
		u.Errorf("%s and %s both have the number %d", a, b, first.Ino)
	}
}

var origins = []check{
	{"a copy of an upper file is not like it", func(u *union) {
		u.mount("dir d\nfile d/f \"f\"")
		u.append("d/f", "1")
		ino := u.stat("d/f").Ino
		u.unmount()
		u.copyAll("d/f", "d/g")
		u.remount()
		u.notLike("d/f", "d/g")
		equal(u, u.stat("d/f").Ino, ino)
		equal(u, u.read("d/f"), "f1")
	}},
	{"a copy of a renamed upper directory is not like it", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.mount("dir d\nfile d/f \"f\"")
		u.append("d/f", "1")
		u.ok(u.rename("d", "e"))
		u.unmount()
		u.copyAll("e", "e2")
		u.remount()
		u.notLike("e/f", "e2/f")
		u.notLike("e", "e2")
	}},
	{"a lower file that has got more names is another file than its copy", func(u *union) {
		u.editsLower = true
		u.mount("file f \"f\"")
		u.append("f", "1")
		u.unmount()
		u.ok(os.Link(u.low(0, "f"), u.low(0, "g")))
		u.remount()
		u.notLike("f", "g")
		equal(u, u.read("f")+u.read("g"), "f1f")
	}},
	{"a directory is marked when a copy comes in, and not longer than that is so", func(u *union) {
		u.mount("file f\ndir d\nfile d/g")
		u.ok(u.mkdir("p"))
		u.write("p/new", "")
		u.list("p")
		equal(u, u.isImpure("p"), false)
		u.ok(u.rename("f", "p/f"))
		equal(u, u.isImpure("p"), true)
		u.list("p")
		equal(u, u.isImpure("p"), true)
		u.ok(u.unlink("p/f"))
		u.ok(u.unlink("p/new"))
		equal(u, u.list("p"), "")
		equal(u, u.isImpure("p"), false)
		u.ok(u.rename("d/g", "p/g"))
		equal(u, u.isImpure("p"), true)
		ino := u.stat("p/g").Ino
		u.remount()
		equal(u, u.stat("p/g").Ino, ino)
		equal(u, u.listedNumber("p", "g"), ino)
	}},
}
