package mounttest

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

var readonly = []check{
	{"without an upper layer every write is EROFS", func(u *union) {
		u.mountReadOnly(`file f "x" user.x="1"`, "dir d\nfile d/g\nfile f \"low\"\nsymlink s -> f")
		everyWriteFails(u)
		u.merged("file f \"x\" user.x=\"1\"\ndir d\nfile d/g\nsymlink s -> f")
	}},
	{"with option ro too", func(u *union) {
		u.onUpper = `file up "u"`
		u.layers(`file f "x" user.x="1"`, "dir d\nfile d/g\nsymlink s -> f")
		u.spec.Options.ReadOnly = true
		u.remount()
		everyWriteFails(u)
		u.merged("file up \"u\"\nfile f \"x\" user.x=\"1\"\ndir d\nfile d/g\nsymlink s -> f")
		u.upper(`file up "u"`)
	}},
	{"with option ro reading sets no times", func(u *union) {
		u.onUpper = "dir d\nfile d/f \"f\""
		u.layers("dir low")
		u.spec.Options.ReadOnly, u.spec.Options.Atime = true, layer.AtimeAlways
		u.remount()
		u.list("d")
		u.read("d/f")
		for _, name := range []string{"d", "d/f"} {
			before := u.stat(name).Atim
			sleepTick()
			u.list("d")
			u.read("d/f")
			equal(u, u.stat(name).Atim, before)
			var st unix.Stat_t
			u.ok(unix.Stat(u.up(name), &st))
			equal(u, st.Atim, before)
		}
	}},
	{"merges, whiteouts and opaque directories", func(u *union) {
		u.mountReadOnly("dir d\nfile d/1\nwhiteout gone\ndir o opaque\nfile o/new", "dir d\nfile d/2\nfile gone\ndir o\nfile o/old")
		u.missing("gone")
		u.merged("dir d\nfile d/1\nfile d/2\ndir o\nfile o/new")
	}},
	{"reading in all ways", func(u *union) {
		u.mountReadOnly("file f size=8192 data=4096:\"x\"", "dir d")
		fd := u.open("f", unix.O_RDONLY, 0)
		m := u.mmap(fd, 8192, unix.PROT_READ, unix.MAP_SHARED)
		equal(u, m[4096], 'x')
		u.ok(unix.Munmap(m))
		p := u.mmap(fd, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		p[0] = 'y'
		u.ok(unix.Munmap(p))
		u.ok(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
		u.ok(unix.Access(u.path("f"), unix.R_OK))
		u.fails(unix.EROFS, unix.Access(u.path("f"), unix.W_OK))
	}},
}

func everyWriteFails(u *union) {
	u.Helper()
	writes := []struct {
		what string
		err  error
	}{
		{"open for writing", u.openErr("f", unix.O_WRONLY, 0)},
		{"open for both", u.openErr("f", unix.O_RDWR, 0)},
		{"open with O_TRUNC", u.openErr("f", unix.O_RDONLY|unix.O_TRUNC, 0)},
		{"create", u.openErr("new", unix.O_CREAT|unix.O_WRONLY, 0o600)},
		{"O_TMPFILE", u.openErr("d", unix.O_TMPFILE|unix.O_WRONLY, 0o600)},
		{"mkdir", u.mkdir("new")},
		{"symlink", u.symlink("x", "new")},
		{"mknod", u.mknod("new", unix.S_IFIFO|0o600, 0)},
		{"link", u.link("f", "new")},
		{"unlink", u.unlink("f")},
		{"rmdir", u.rmdir("d")},
		{"rename", u.rename("f", "new")},
		{"rename over", u.rename("f", "d/g")},
		{"exchange", u.rename2("f", "d/g", unix.RENAME_EXCHANGE)},
		{"chmod", u.chmod("f", 0o600)},
		{"chown", u.chown("s", 1, 1)},
		{"truncate", u.truncate("f", 0)},
		{"utimes", u.utimes("d", 1)},
		{"setxattr", u.setxattr("f", "user.y", "1")},
		{"removexattr", u.removexattr("f", "user.x")},
	}
	for _, w := range writes {
		if w.err != unix.EROFS {
			u.Errorf("%s: %v, want EROFS", w.what, w.err)
		}
	}
	// What would fail anyhow fails as it would.
	u.fails(unix.EEXIST, u.mkdir("d"))
	u.close(u.open("f", unix.O_CREAT|unix.O_RDONLY, 0o600))
}
