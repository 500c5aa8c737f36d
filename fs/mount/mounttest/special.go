package mounttest

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var special = []check{
	{"fifos connect", func(u *union) {
		u.onUpper = "fifo up"
		u.mount("fifo low")
		for _, name := range []string{"up", "low"} {
			r := u.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
			w := u.open(name, unix.O_WRONLY|unix.O_NONBLOCK, 0)
			_, err := unix.Write(w, []byte("through"))
			u.ok(err)
			b := make([]byte, 100)
			n, err := unix.Read(r, b)
			u.ok(err)
			equal(u, string(b[:n]), "through")
		}
		u.upper("fifo up") // opening a fifo for writing copies nothing
	}},
	{"sockets connect", func(u *union) {
		u.mount("dir d")
		// The address of a socket has room for 108 bytes of path.
		u.as(user{}, func() {
			l, err := net.Listen("unix", "d/sock")
			u.ok(err)
			defer l.Close()
			c, err := net.DialTimeout("unix", "d/sock", 5*time.Second)
			u.ok(err)
			c.Close()
		})
		u.missing("d/sock") // Close removes it
	}},
	{"devices are the kernel's", func(u *union) {
		u.onUpper = "char zero 1:5 mode=0666"
		u.mount("char null 1:3 mode=0666")
		null := u.open("null", unix.O_RDWR, 0)
		_, err := unix.Write(null, []byte("x"))
		u.ok(err)
		b := []byte("xx")
		n, err := unix.Read(null, b)
		u.ok(err)
		equal(u, n, 0)
		n, err = unix.Read(u.open("zero", unix.O_RDONLY, 0), b)
		u.ok(err)
		equal(u, string(b[:n]), "\x00\x00")
		u.upper("char zero 1:5 mode=0666")
	}},
	{"devices that do not exist can be changed and removed", func(u *union) {
		u.mount("char c 240:77\nblock b 240:77\nchar r 240:78")
		u.fails(unix.ENXIO, u.openErr("c", unix.O_RDONLY, 0))
		u.ok(u.chmod("c", 0o600))
		u.ok(u.chown("b", 1, 2))
		u.ok(u.rename("r", "moved"))
		u.merged("block b 240:77 owner=1:2\nchar c 240:77 mode=0600\nchar moved 240:78")
		u.ok(u.unlink("c"))
		u.ok(u.unlink("b"))
		u.upper("whiteout b\nwhiteout c\nchar moved 240:78\nwhiteout r")
	}},
	{"fifos are not opened by copy-up", func(u *union) {
		u.mount("fifo p trusted.x=\"1\"\nfifo q")
		u.ok(u.chmod("p", 0o600)) // would wait for a writer
		u.ok(u.link("q", "r"))
		u.upper("fifo p mode=0600 trusted.x=\"1\"\nfifo q nlink=2\nhardlink r -> q")
	}},
	{"symlinks are not followed by the union", func(u *union) {
		u.layers("dir d")
		u.editsLower = true
		// Into the union itself: whoever serves it would wait for itself.
		u.ok(os.Symlink(u.dir+"/d", u.low(0, "self")))
		u.ok(os.Symlink("/nonexistent", u.low(0, "none")))
		u.remount()
		for _, name := range []string{"self", "none"} {
			u.ok(u.setxattr(name, "trusted.x", "1"))
			equal(u, u.listxattr(name), "trusted.x")
			u.ok(u.chown(name, 1, 2))
			u.ok(u.utimes(name, old))
			u.ok(u.link(name, name+"2"))
			u.ok(u.rename(name, name+"3"))
			equal(u, u.stat(name+"3").Mtim.Sec, old)
		}
		var st unix.Stat_t
		u.ok(unix.Stat(u.path("self3"), &st))
		equal(u, st.Ino, u.stat("d").Ino)
	}},
}
