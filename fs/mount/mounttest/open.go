package mounttest

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

var open = []check{
	{"flags and types", func(u *union) {
		u.mount("file f \"x\"\ndir d\nsymlink s -> f\nsymlink loop -> loop")
		u.fails(unix.ELOOP, u.openErr("s", unix.O_RDONLY|unix.O_NOFOLLOW, 0))
		u.fails(unix.ELOOP, u.openErr("loop", unix.O_RDONLY, 0))
		u.fails(unix.ENOTDIR, u.openErr("f", unix.O_RDONLY|unix.O_DIRECTORY, 0))
		u.fails(unix.ENOTDIR, u.openErr("f/", unix.O_RDONLY, 0))
		u.fails(unix.EISDIR, u.openErr("new/", unix.O_CREAT|unix.O_WRONLY, 0o600))
		u.fails(unix.EISDIR, u.openErr("d", unix.O_CREAT|unix.O_RDONLY, 0o600))
		u.fails(unix.ENOENT, u.openErr("none", unix.O_RDONLY, 0))
		u.missing("new")
	}},
	{"O_APPEND writes at the end, wherever that is", func(u *union) {
		u.mount(`file f "0123"`)
		fd := u.open("f", unix.O_RDWR|unix.O_APPEND, 0)
		other := u.open("f", unix.O_WRONLY|unix.O_APPEND, 0)
		for i, fd := range []int{fd, other, fd, other} {
			_, err := unix.Seek(fd, 0, unix.SEEK_SET)
			u.ok(err)
			_, err = unix.Write(fd, fmt.Append(nil, i))
			u.ok(err)
		}
		equal(u, u.readFD(fd), "01230123")
		u.ok(u.truncate("f", 1))
		_, err := unix.Write(fd, []byte("x"))
		u.ok(err)
		equal(u, u.read("f"), "0x")
	}},
	{"O_APPEND set later", func(u *union) {
		u.mount(`file f "0123"`)
		fd := u.open("f", unix.O_RDWR, 0)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
		u.ok(err)
		_, err = unix.Write(fd, []byte("x"))
		u.ok(err)
		equal(u, u.read("f"), "0123x")
	}},
	{"access mode is kept", func(u *union) {
		u.mount(`file f "x"`)
		ro, wo := u.open("f", unix.O_RDONLY, 0), u.open("f", unix.O_WRONLY, 0)
		_, err := unix.Write(ro, []byte("y"))
		u.fails(unix.EBADF, err)
		_, err = unix.Read(wo, make([]byte, 1))
		u.fails(unix.EBADF, err)
	}},
	{"a new file without permissions can be written by who made it", func(u *union) {
		u.mount("dir d mode=0777")
		u.as(user{uid: nobody, gid: nobody}, func() {
			fd := u.open("d/new", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0)
			u.writeAt(fd, 0, "x")
			equal(u, u.readFD(fd), "x")
			u.fails(unix.EACCES, u.openErr("d/new", unix.O_RDONLY, 0))
		})
		u.upper("dir d mode=0777\nfile d/new \"x\" mode=0000 owner=65534:65534")
	}},
	{"an unlinked file lives while it is open", func(u *union) {
		u.onUpper = `file up "up"`
		u.mount(`file low "low"`)
		for _, name := range []string{"up", "low"} {
			ro, rw := u.open(name, unix.O_RDONLY, 0), u.open(name, unix.O_RDWR, 0)
			u.ok(u.unlink(name))
			equal(u, u.fstat(ro).Nlink, 0)
			u.writeAt(rw, 10, "more")
			equal(u, u.readFD(ro), name+strings.Repeat("\x00", 10-len(name))+"more")
			u.ok(unix.Ftruncate(rw, 1))
			equal(u, u.readFD(ro), name[:1])
			u.ok(unix.Fchmod(rw, 0o600))
			equal(u, u.fstat(ro).Mode&0o777, 0o600)
			u.ok(unix.Fsync(rw))
			equal(u, u.fstat(ro).Size, 1)
		}
		u.merged("")
		u.upper("whiteout low")
	}},
	{"an unlinked lower file, opened for reading only", func(u *union) {
		u.mount(`file f "low" mode=0640`)
		fd := u.open("f", unix.O_RDONLY, 0)
		u.ok(u.unlink("f"))
		equal(u, u.readFD(fd), "low")
		equal(u, u.fstat(fd).Mode&0o777, 0o640)
		u.fails(unix.ENOENT, unix.Linkat(fd, "", unix.AT_FDCWD, u.path("again"), unix.AT_EMPTY_PATH))
	}},
	{"O_TMPFILE", func(u *union) {
		u.mount("dir d mode=0777")
		fd := u.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o640)
		u.writeAt(fd, 0, "tmp")
		equal(u, u.readFD(fd), "tmp")
		equal(u, u.fstat(fd).Nlink, 0)
		u.merged("dir d mode=0777")
		u.ok(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, u.path("d/f"), unix.AT_SYMLINK_FOLLOW))
		equal(u, u.fstat(fd).Nlink, 1)
		u.writeAt(fd, 3, "+")
		equal(u, u.read("d/f"), "tmp+")
		u.upper("dir d mode=0777\nfile d/f \"tmp+\" mode=0640")
	}},
	{"O_TMPFILE over a whiteout, and never linked", func(u *union) {
		u.onUpper = "whiteout f"
		u.mount(`file f "low"`)
		fd := u.open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o600)
		u.writeAt(fd, 0, "new")
		u.ok(unix.Linkat(fd, "", unix.AT_FDCWD, u.path("f"), unix.AT_EMPTY_PATH))
		u.upper(`file f "new" mode=0600`)
		excl := u.open(".", unix.O_TMPFILE|unix.O_EXCL|unix.O_WRONLY, 0o600)
		u.fails(unix.ENOENT, unix.Linkat(excl, "", unix.AT_FDCWD, u.path("g"), unix.AT_EMPTY_PATH))
		u.fails(unix.EINVAL, u.openErr(".", unix.O_TMPFILE|unix.O_RDONLY, 0o600))
	}},
	{"O_PATH", func(u *union) {
		u.mount("file f \"x\" mode=0000\nsymlink s -> f\ndir d\nfile d/g \"g\"")
		fd := u.open("f", unix.O_PATH, 0)
		equal(u, u.fstat(fd).Size, 1)
		_, err := unix.Read(fd, make([]byte, 1))
		u.fails(unix.EBADF, err)
		equal(u, u.fstat(u.open("s", unix.O_PATH|unix.O_NOFOLLOW, 0)).Mode&unix.S_IFMT, unix.S_IFLNK)
		d := u.open("d", unix.O_PATH, 0)
		u.ok(unix.Faccessat(d, "g", unix.R_OK, 0))
		u.upper("")
	}},
	{"O_DIRECT", func(u *union) {
		u.mount("file f size=8192 data=4096:\"low\"")
		fd := u.open("f", unix.O_RDWR|unix.O_DIRECT, 0)
		b := aligned(4096)
		n, err := unix.Pread(fd, b, 4096)
		u.ok(err)
		equal(u, string(b[:n])[:4], "low\x00")
		copy(b, "direct")
		_, err = unix.Pwrite(fd, b, 0)
		u.ok(err)
		// What was cached of the file must not hide it.
		equal(u, u.read("f")[:7], "direct\x00")
		other := u.open("f", unix.O_WRONLY, 0)
		u.writeAt(other, 0, "cached")
		_, err = unix.Pread(fd, b, 0)
		u.ok(err)
		equal(u, string(b[:6]), "cached")
	}},
	{"through /proc", func(u *union) {
		u.mount(`file f "x"`)
		fd := u.open("f", unix.O_RDONLY, 0)
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
		u.ok(err)
		defer unix.Close(again)
		u.writeAt(again, 1, "y")
		equal(u, u.readFD(fd), "xy")
		name := make([]byte, 4096)
		n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), name)
		u.ok(err)
		equal(u, string(name[:n]), u.path("f"))
	}},
	{"programs run", func(u *union) {
		u.mount("file low \"#!/bin/sh\\nexit 7\\n\" mode=0755\nfile not \"#!/bin/sh\\n\"")
		u.write("new", "#!/bin/sh\nexit 8\n")
		u.ok(u.chmod("new", 0o755))
		for name, want := range map[string]int{"low": 7, "new": 8} {
			err := exec.Command(u.path(name)).Run()
			exit, ok := err.(*exec.ExitError)
			if !ok || exit.ExitCode() != want {
				u.Errorf("%s: %v, want exit status %d", name, err, want)
			}
		}
		u.fails(unix.EACCES, exec.Command(u.path("not")).Run())
	}},
	{"many descriptors", func(u *union) {
		u.mount(`file f "x"`)
		var fds []int
		for range 200 {
			fds = append(fds, u.open("f", unix.O_RDONLY, 0))
		}
		u.append("f", "y")
		for _, fd := range fds {
			equal(u, u.readFD(fd), "xy")
		}
	}},
}
