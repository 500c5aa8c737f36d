package mounttest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

var readdir = []check{
	{"each name once, without whiteouts", func(u *union) {
		u.onUpper = "dir d\nfile d/b\nwhiteout d/c\nfile d/e"
		u.mount("dir d\nfile d/a\nfile d/b\nfile d/c", "dir d\nfile d/a\nfile d/c\nwhiteout d/d\nfile d/f", "dir d\nfile d/d\nfile d/g")
		equal(u, u.list("d"), "a b e f g")
	}},
	{"dot and dotdot are listed", func(u *union) {
		u.mount("dir d\nfile d/x", "dir d")
		for _, name := range []string{".", "d"} {
			fd := u.open(name, unix.O_RDONLY, 0)
			list, err := testfs.ReadDir(fd)
			u.ok(err)
			var dots int
			for _, d := range list {
				if d.Name == "." || d.Name == ".." {
					equal(u, d.Type, unix.DT_DIR)
					dots++
				}
			}
			equal(u, dots, 2)
		}
	}},
	{"types and inode numbers are those of stat", func(u *union) {
		u.onUpper = "dir d\nfile d/upper\nsymlink d/us -> x"
		u.mount("dir d\nfile d/f\ndir d/d\nsymlink d/s -> x\nfifo d/p\nchar d/c 1:3\nsocket d/k", "dir d\nfile d/low\ndir d/d\nblock d/b 7:0")
		u.ok(u.chmod("d/low", 0o600)) // copied up: the number must stay
		fd := u.open("d", unix.O_RDONLY, 0)
		list, err := testfs.ReadDir(fd)
		u.ok(err)
		for _, d := range list {
			if d.Name == ".." || d.Name == "." {
				continue
			}
			st := u.stat("d/" + d.Name)
			if uint32(d.Type) != st.Mode&unix.S_IFMT>>12 || d.Ino != st.Ino {
				u.Errorf("%s: listed with type %d and number %d, stat has %#o and %d", d.Name, d.Type, d.Ino, st.Mode, st.Ino)
			}
		}
	}},
	{"what is listed can be found", func(u *union) {
		u.onUpper = "dir d\nwhiteout d/b"
		u.mount("dir d\nfile d/a\nfile d/b", "dir d\nfile d/b\nfile d/c\nwhiteout d/x")
		for _, name := range strings.Fields(u.list("d")) {
			u.stat("d/" + name)
		}
	}},
	{"large directories, small buffers", func(u *union) {
		var one, two strings.Builder
		one.WriteString("dir d\n")
		two.WriteString("dir d\n")
		for i := range 700 {
			fmt.Fprintf(&one, "file d/file-%04d\n", i)
			fmt.Fprintf(&two, "file d/file-%04d\n", i+500)
		}
		u.mount(one.String(), two.String())
		u.ok(u.unlink("d/file-0600"))
		u.write("d/file-new", "")
		for _, size := range []int{64, 1000, 1 << 20} {
			fd := u.open("d", unix.O_RDONLY, 0)
			seen := map[string]bool{}
			for {
				list, err := testfs.Getdents(fd, size)
				u.ok(err)
				if len(list) == 0 {
					break
				}
				for _, d := range list {
					if seen[d.Name] {
						u.Fatalf("%s listed twice with a buffer of %d bytes", d.Name, size)
					}
					seen[d.Name] = true
				}
			}
			equal(u, len(seen), 1200+2)
			equal(u, seen["file-0600"], false)
			equal(u, seen["file-new"], true)
			u.close(fd)
		}
	}},
	{"the number of dotdot after a move", func(u *union) {
		u.mount("dir a\ndir b")
		u.ok(u.mkdir("a/d"))
		u.list("a/d")
		u.ok(u.rename("a/d", "b/d"))
		u.soon(func() bool { return u.listedNumber("b/d", "..") == u.stat("b").Ino })
	}},
	{"a number that changes with a copy-up", func(u *union) {
		u.layers("dir d\nfile d/f")
		u.ok(os.Link(u.low(0, "d/f"), u.low(0, "d/g")))
		u.editsLower = true
		u.remount()
		u.list("d")
		u.append("d/f", "more")
		u.soon(func() bool { return u.listedNumber("d", "f") == u.stat("d/f").Ino })
	}},
	{"seek goes back to where an entry was", func(u *union) {
		u.mount("dir d\nfile d/a\nfile d/b\nfile d/c\nfile d/d", "dir d\nfile d/e\nfile d/f")
		fd := u.open("d", unix.O_RDONLY, 0)
		list, err := testfs.ReadDir(fd)
		u.ok(err)
		equal(u, len(list), 8)
		for i := range list[:len(list)-1] {
			_, err := unix.Seek(fd, list[i].Off, unix.SEEK_SET)
			u.ok(err)
			rest, err := testfs.ReadDir(fd)
			u.ok(err)
			equal(u, fmt.Sprint(rest), fmt.Sprint(list[i+1:]))
		}
	}},
	{"rewinding shows what is new", func(u *union) {
		u.mount("dir d\nfile d/a", "dir d\nfile d/b")
		fd := u.open("d", unix.O_RDONLY, 0)
		equal(u, u.names(fd), "a b")
		u.write("d/c", "")
		u.ok(u.unlink("d/b"))
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		u.ok(err)
		equal(u, u.names(fd), "a c")
	}},
	{"a change is listed at once", func(u *union) {
		u.mount("dir d\nfile d/a", "dir d\nfile d/b")
		equal(u, u.list("d"), "a b")
		u.write("d/c", "")
		equal(u, u.list("d"), "a b c")
		u.ok(u.unlink("d/a"))
		equal(u, u.list("d"), "b c")
		u.ok(u.rename("d/b", "d/z"))
		equal(u, u.list("d"), "c z")
		u.ok(u.rename("d/z", "z"))
		equal(u, u.list("d"), "c")
		equal(u, u.list("."), "d z")
	}},
	{"a pure lower directory becomes a merged one", func(u *union) {
		u.mount("dir d\nfile d/a")
		fd := u.open("d", unix.O_RDONLY, 0)
		equal(u, u.names(fd), "a")
		u.write("d/b", "")
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		u.ok(err)
		equal(u, u.names(fd), "a b")
		equal(u, u.list("d"), "a b")
	}},
	{"removing while listing removes all", func(u *union) {
		var text strings.Builder
		text.WriteString("dir d\n")
		for i := range 400 {
			fmt.Fprintf(&text, "file d/f%03d\n", i)
		}
		u.onUpper = "dir d\nfile d/upper"
		u.mount(text.String())
		fd := u.open("d", unix.O_RDONLY, 0)
		for {
			list, err := testfs.Getdents(fd, 1000)
			u.ok(err)
			if len(list) == 0 {
				break
			}
			for _, d := range list {
				if d.Name != "." && d.Name != ".." {
					u.ok(u.unlink("d/" + d.Name))
				}
			}
		}
		u.ok(u.rmdir("d"))
		u.merged("")
		u.upper("whiteout d")
	}},
	{"a removed directory that is open is empty", func(u *union) {
		u.mount("dir d")
		fd := u.open("d", unix.O_RDONLY, 0)
		u.ok(u.rmdir("d"))
		list, err := testfs.ReadDir(fd)
		if err == nil {
			for _, d := range list {
				if d.Name != "." && d.Name != ".." {
					u.Errorf("%q is listed", d.Name)
				}
			}
		} else {
			u.fails(unix.ENOENT, err)
		}
	}},
	{"a file is not a directory", func(u *union) {
		u.mount("file f")
		fd := u.open("f", unix.O_RDONLY, 0)
		_, err := testfs.ReadDir(fd)
		u.fails(unix.ENOTDIR, err)
		u.fails(unix.ENOTDIR, u.openErr("f", unix.O_RDONLY|unix.O_DIRECTORY, 0))
	}},
	{"a directory cannot be read as a file", func(u *union) {
		u.mount("dir d")
		fd := u.open("d", unix.O_RDONLY, 0)
		_, err := unix.Read(fd, make([]byte, 10))
		u.fails(unix.EISDIR, err)
		u.fails(unix.EISDIR, u.openErr("d", unix.O_WRONLY, 0))
		u.fails(unix.EISDIR, u.openErr("d", unix.O_RDWR, 0))
	}},
	{"fsync of a directory", func(u *union) {
		u.mount("dir d\ndir e")
		u.write("d/x", "1")
		for _, name := range []string{".", "d", "e"} {
			fd := u.open(name, unix.O_RDONLY, 0)
			u.ok(unix.Fsync(fd))
			u.ok(unix.Fdatasync(fd))
		}
	}},
}

// listedNumber is the inode number that a directory lists for a name.
func (u *union) listedNumber(dir, name string) uint64 {
	u.Helper()
	fd := u.open(dir, unix.O_RDONLY, 0)
	defer u.close(fd)
	list, err := testfs.ReadDir(fd)
	u.ok(err)
	for _, d := range list {
		if d.Name == name {
			return d.Ino
		}
	}
	u.Fatalf("%s does not list %s", dir, name)
	return 0
}
