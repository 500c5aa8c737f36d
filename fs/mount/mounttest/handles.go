package mounttest

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// mountExported is mount with option nfs_export=on: files have handles.
func (u *union) mountExported(lowers ...string) {
	u.Helper()
	u.layers(lowers...)
	u.spec.Options.NFSExport = true
	u.remount()
}

// handle is the handle of a file, and byHandle opens it.
func (u *union) handle(name string) unix.FileHandle {
	u.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, u.path(name), 0)
	u.ok(err)
	return h
}

func (u *union) tryByHandle(h unix.FileHandle, flags int) (int, error) {
	u.Helper()
	root := u.open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer u.close(root)
	fd, err := unix.OpenByHandleAt(root, h, flags|unix.O_CLOEXEC)
	if err == nil {
		u.fds[fd] = true
	}
	return fd, err
}

func (u *union) byHandle(h unix.FileHandle, flags int) int {
	u.Helper()
	fd, err := u.tryByHandle(h, flags)
	u.ok(err)
	return fd
}

func (u *union) readHandle(h unix.FileHandle) string {
	u.Helper()
	fd := u.byHandle(h, unix.O_RDONLY)
	defer u.close(fd)
	return u.readFD(fd)
}

// makeForgotten makes the kernel forget what is not in use of the union.
func (u *union) makeForgotten() {
	u.Helper()
	u.ok(unix.Mount("", u.dir, "", unix.MS_REMOUNT, "")) // reconfigure_super calls shrink_dcache_sb
}

// becomesStale waits until a handle is that of a file that is gone. Over FUSE the kernel tells of the end of a file
// when there is time for it, after the call that ended it.
func (u *union) becomesStale(h unix.FileHandle) {
	u.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		u.makeForgotten()
		fd, err := u.tryByHandle(h, unix.O_RDONLY)
		if err == nil {
			u.close(fd)
		}
		if err == unix.ESTALE {
			return
		}
		if err != nil || time.Now().After(end) {
			u.Fatalf("open by the handle of a file that is gone: %v, want ESTALE", err)
		}
	}
}

var handles = []check{
	{"none without nfs_export", func(u *union) {
		u.mount("file f")
		_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, u.path("f"), 0)
		u.fails(unix.EOPNOTSUPP, err)
	}},
	{"of what was forgotten", func(u *union) {
		u.onUpper = "file up \"up\""
		u.mountExported("dir d\nfile d/low \"low\"")
		u.write("d/new", "new")
		low, up, made := u.handle("d/low"), u.handle("up"), u.handle("d/new")
		u.makeForgotten()
		equal(u, u.readHandle(low), "low")
		equal(u, u.readHandle(up), "up")
		equal(u, u.readHandle(made), "new")
		u.makeForgotten()
		fd := u.byHandle(low, unix.O_WRONLY) // copies it up
		u.writeAt(fd, 3, "er")
		u.close(fd)
		equal(u, u.read("d/low"), "lower")
		u.makeForgotten()
		equal(u, u.readHandle(low), "lower")
	}},
	{"of a directory", func(u *union) {
		u.mountExported("dir a\ndir a/b\nfile a/b/f", "dir a\ndir a/b\nfile a/b/g")
		u.ok(u.mkdir("a/new"))
		merged, made := u.handle("a/b"), u.handle("a/new")
		u.makeForgotten()
		for i, want := range []string{"/a/b", "/a/new"} {
			fd := u.byHandle([]unix.FileHandle{merged, made}[i], unix.O_RDONLY|unix.O_DIRECTORY)
			path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			u.ok(err)
			equal(u, path, u.dir+want)
		}
		fd := u.byHandle(merged, unix.O_RDONLY|unix.O_DIRECTORY)
		equal(u, u.names(fd), "f g")
	}},
	{"after a rename", func(u *union) {
		u.mountExported("file low \"low\"\ndir to")
		u.ok(u.mkdir("from"))
		u.write("from/f", "f")
		low, f := u.handle("low"), u.handle("from/f")
		u.ok(u.rename("low", "to/low"))
		u.ok(u.rename("from", "to/from"))
		u.makeForgotten()
		equal(u, u.readHandle(low), "low")
		equal(u, u.readHandle(f), "f")
		u.makeForgotten()
		u.ok(u.rename("to/from", "back")) // of what is forgotten, too
		u.ok(u.rename("to/low", "back/low"))
		u.makeForgotten()
		equal(u, u.readHandle(low), "low")
		equal(u, u.readHandle(f), "f")
	}},
	{"of a file that has lost a name", func(u *union) {
		u.mountExported("dir d")
		u.write("f", "f")
		u.ok(u.link("f", "d/other"))
		h := u.handle("f")
		u.ok(u.unlink("f"))
		u.makeForgotten()
		equal(u, u.readHandle(h), "f")
		u.makeForgotten()
		u.ok(u.unlink("d/other"))
		u.becomesStale(h)
	}},
	{"of what is gone", func(u *union) {
		u.mountExported("file low\ndir d\nfile d/f")
		u.ok(u.mkdir("new"))
		var all []unix.FileHandle
		for _, name := range []string{"low", "d/f", "d", "new"} {
			all = append(all, u.handle(name))
		}
		u.makeForgotten()
		u.ok(u.unlink("low"))
		u.ok(u.unlink("d/f"))
		u.ok(u.rmdir("d"))
		u.ok(u.rmdir("new"))
		for _, h := range all {
			u.becomesStale(h)
		}
	}},
	{"of a file that never had a name", func(u *union) {
		u.mountExported("dir d")
		fd := u.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
		u.writeAt(fd, 0, "x")
		h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
		u.ok(err)
		equal(u, u.readHandle(h), "x")
		u.close(fd)
		u.becomesStale(h)
	}},
}
