package mounttest

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// full is a lower file with everything that must survive a copy-up.
const full = `dir d mode=0750 owner=10:20 user.d="dir" mtime=1500000000
	file d/f "0123456789" mode=0640 owner=30:40 user.f="file" mtime=1400000000.123456789`

var copyup = []check{
	{"reading copies nothing", func(u *union) {
		u.mount(full, "symlink s -> d")
		equal(u, u.read("d/f"), "0123456789")
		u.stat("d/f")
		u.list("d")
		u.readlink("s")
		u.listxattr("d/f")
		u.ok(unix.Access(u.path("d/f"), unix.W_OK))
		u.upper("")
	}},
	{"opening for writing copies", func(u *union) {
		u.mount(full)
		u.open("d/f", unix.O_RDWR, 0)
		u.upper(full)
		u.merged(full)
	}},
	{"mode, owner, times and xattrs are kept", func(u *union) {
		u.mount(full)
		u.ok(u.setxattr("d/f", "user.new", "1"))
		st := u.stat("d/f")
		equal(u, st.Mtim.Sec, 1400000000)
		equal(u, st.Mtim.Nsec, 123456789)
		equal(u, u.stat("d").Mtim.Sec, 1500000000)
		u.upper(`dir d mode=0750 owner=10:20 user.d="dir"
			file d/f "0123456789" mode=0640 owner=30:40 user.f="file" user.new="1"`)
	}},
	{"write", func(u *union) {
		u.mount(full)
		fd := u.open("d/f", unix.O_WRONLY, 0)
		u.writeAt(fd, 3, "abc")
		equal(u, u.read("d/f"), "012abc6789")
		u.remount()
		equal(u, u.read("d/f"), "012abc6789")
	}},
	{"append", func(u *union) {
		u.mount(full)
		u.append("d/f", "++")
		equal(u, u.read("d/f"), "0123456789++")
	}},
	{"truncate by path, by open and by descriptor", func(u *union) {
		u.mount("file a \"0123456789\"\nfile b \"0123456789\"\nfile c \"0123456789\"")
		u.ok(u.truncate("a", 3))
		u.close(u.open("b", unix.O_WRONLY|unix.O_TRUNC, 0))
		u.ok(unix.Ftruncate(u.open("c", unix.O_WRONLY, 0), 12))
		u.upper("file a \"012\"\nfile b\nfile c \"0123456789\\x00\\x00\"")
	}},
	{"opening a lower file read-only with O_TRUNC", func(u *union) {
		u.mount(`file a "0123456789"`)
		fd := u.open("a", unix.O_RDONLY|unix.O_TRUNC, 0)
		equal(u, u.readFD(fd), "")
		u.upper("file a")
	}},
	{"chmod, chown and times", func(u *union) {
		u.mount("file a \"1\"\nfile b \"2\"\nfile c \"3\"\ndir d\nsymlink s -> a")
		u.ok(u.chmod("a", 0o600))
		u.ok(u.chown("b", 1, 2))
		u.ok(u.utimes("c", 1000000000))
		u.ok(u.chmod("d", 0o700))
		u.ok(u.chown("s", 3, 4))
		u.upper("file a \"1\" mode=0600\nfile b \"2\" owner=1:2\nfile c \"3\"\ndir d mode=0700\nsymlink s -> a owner=3:4")
		equal(u, u.stat("c").Mtim.Sec, 1000000000)
	}},
	{"ancestors are copied with all they have", func(u *union) {
		u.mount(`dir a mode=0711 owner=1:1 user.a="a" mtime=1500000001
			dir a/b mode=0722 owner=2:2 mtime=1500000002
			dir a/b/c mode=0733 mtime=1500000003
			file a/b/c/f "x"
			file a/b/other`)
		u.ok(u.chmod("a/b/c/f", 0o600))
		u.upper("dir a mode=0711 owner=1:1 user.a=\"a\"\ndir a/b mode=0722 owner=2:2\ndir a/b/c mode=0733\nfile a/b/c/f \"x\" mode=0600")
		equal(u, u.stat("a").Mtim.Sec, 1500000001)
		equal(u, u.stat("a/b").Mtim.Sec, 1500000002)
		equal(u, u.stat("a/b/c").Mtim.Sec, 1500000003)
	}},
	{"a directory is copied without what is in it", func(u *union) {
		u.mount("dir d\nfile d/a\ndir d/s\nfile d/s/b")
		u.ok(u.chmod("d", 0o700))
		u.upper("dir d mode=0700")
		u.merged("dir d mode=0700\nfile d/a\ndir d/s\nfile d/s/b")
	}},
	{"the topmost of several is copied", func(u *union) {
		u.mount("file x", `file f "one"`, `file f "two"`)
		u.append("f", "+")
		u.upper(`file f "one+"`)
	}},
	{"an upper file is not copied again", func(u *union) {
		u.mount(`file f "lower"`)
		u.append("f", "1")
		ino := u.stat("f").Ino
		u.append("f", "2")
		u.ok(u.chmod("f", 0o600))
		equal(u, u.stat("f").Ino, ino)
		u.upper(`file f "lower12" mode=0600`)
	}},
	{"inode numbers stay", func(u *union) {
		u.mount("file f \"x\"\ndir d\nsymlink s -> x\nfifo p")
		fd := u.open("f", unix.O_RDONLY, 0)
		before := map[string]uint64{}
		for _, name := range []string{"f", "d", "s", "p"} {
			before[name] = u.stat(name).Ino
			u.ok(u.chown(name, 1, 1))
			if now := u.stat(name).Ino; now != before[name] {
				u.Errorf("%s had number %d, and has %d", name, before[name], now)
			}
		}
		equal(u, u.fstat(fd).Ino, before["f"])
	}},
	{"a descriptor from before sees attributes from after", func(u *union) {
		u.mount(`file f "x"`)
		fd := u.open("f", unix.O_RDONLY, 0)
		u.ok(u.chmod("f", 0o600))
		u.append("f", "yz")
		st := u.fstat(fd)
		equal(u, st.Mode&0o7777, 0o600)
		equal(u, st.Size, 3)
	}},
	{"fchmod and fchown through a read-only descriptor", func(u *union) {
		u.mount(`file f "x"`)
		fd := u.open("f", unix.O_RDONLY, 0)
		u.ok(unix.Fchmod(fd, 0o640))
		u.ok(unix.Fchown(fd, 7, 8))
		u.upper(`file f "x" mode=0640 owner=7:8`)
		equal(u, u.readFD(fd), "x")
	}},
	{"capabilities stay, but not over a write", func(u *union) {
		// cap_net_raw, permitted and effective, version 2.
		const xattr, caps = "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		u.mount(fmt.Sprintf("file a %s=%q mode=0755\nfile b %s=%q mode=0755", xattr, caps, xattr, caps))
		u.ok(u.utimes("a", 5))
		got, err := u.getxattr("a", xattr)
		u.ok(err)
		equal(u, got, caps)
		u.append("b", "x")
		_, err = u.getxattr("b", xattr)
		u.fails(unix.ENODATA, err)
	}},
	{"set-id bits stay", func(u *union) {
		u.mount("file a \"x\" mode=6755 owner=1:2\ndir d mode=3777")
		u.ok(u.setxattr("a", "user.x", "1"))
		u.ok(u.setxattr("d", "user.x", "1"))
		u.upper(`file a "x" mode=6755 owner=1:2 user.x="1"` + "\n" + `dir d mode=3777 user.x="1"`)
	}},
	{"files without permissions", func(u *union) {
		u.mount("dir d mode=0000\nfile d/f \"x\" mode=0000")
		u.append("d/f", "y")
		u.upper("dir d mode=0000\nfile d/f \"xy\" mode=0000")
	}},
	{"large files", func(u *union) {
		u.mount("dir d")
		u.editsLower = true
		want := make([]byte, 5<<20+123)
		rand.New(rand.NewSource(1)).Read(want)
		u.ok(os.WriteFile(u.low(0, "d/big"), want, 0o644))
		fd := u.open("d/big", unix.O_RDWR, 0)
		u.writeAt(fd, 3<<20, "changed")
		copy(want[3<<20:], "changed")
		equal(u, u.read("d/big") == string(want), true)
		u.remount()
		equal(u, u.read("d/big") == string(want), true)
	}},
	{"from another file system", func(u *union) {
		u.layers("file f \"0123\" mode=0640 owner=5:6 user.x=\"1\"\ndir d\nfile d/g \"g\"")
		other := mountTmpfs(u, "file f \"0123\" mode=0640 owner=5:6 user.x=\"1\"\ndir d\nfile d/g \"g\"")
		u.spec.Lower = []string{other}
		u.before = nil
		u.remount()
		defer u.unmount() // before the tmpfs goes
		u.append("f", "4")
		u.append("d/g", "h")
		u.upper("file f \"01234\" mode=0640 owner=5:6 user.x=\"1\"\ndir d\nfile d/g \"gh\"")
		equal(u, u.read("d/g"), "gh")
	}},
	{"many writers of one file", func(u *union) {
		const writers, piece = 8, 4096
		u.mount("dir d\nfile d/f size=32768")
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			wg.Go(func() {
				errs[i] = writePiece(u.path("d/f"), int64(i)*piece, strings.Repeat(string(rune('a'+i)), piece))
			})
		}
		wg.Wait()
		for _, err := range errs {
			u.ok(err)
		}
		got := u.read("d/f")
		for i := range writers {
			equal(u, got[i*piece:(i+1)*piece], strings.Repeat(string(rune('a'+i)), piece))
		}
	}},
	{"signals do not disturb it", func(u *union) {
		u.mount("dir d")
		u.editsLower = true
		want := strings.Repeat("0123456789abcdef", 1<<19)
		u.ok(os.WriteFile(u.low(0, "d/big"), []byte(want), 0o644))
		stop := make(chan bool)
		defer close(stop)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		// Go's runtime handles SIGURG with SA_RESTART and ignores it.
		go func(pid, tid int) {
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Tgkill(pid, tid, unix.SIGURG)
					time.Sleep(20 * time.Microsecond)
				}
			}
		}(unix.Getpid(), unix.Gettid())
		for i := range 40 {
			name := fmt.Sprint("d/", i)
			u.ok(u.mknod(name, unix.S_IFREG|0o600, 0))
			u.ok(u.utimes(name, old))
			u.ok(u.rename(name, name+"r"))
			u.ok(u.setxattr(name+"r", "user.x", "1"))
		}
		u.append("d/big", "+")
		equal(u, u.read("d/big") == want+"+", true)
	}},
	{"many files of one directory at once", func(u *union) {
		u.mount("dir a\ndir a/b\nfile a/b/0 \"0\"\nfile a/b/1 \"1\"\nfile a/b/2 \"2\"\nfile a/b/3 \"3\"\nfile a/b/4 \"4\"\nfile a/b/5 \"5\"")
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			wg.Go(func() { errs[i] = u.chmod(fmt.Sprintf("a/b/%d", i), 0o600) })
		}
		wg.Wait()
		for _, err := range errs {
			u.ok(err)
		}
		const want = "dir a\ndir a/b\nfile a/b/0 \"0\" mode=0600\nfile a/b/1 \"1\" mode=0600\nfile a/b/2 \"2\" mode=0600\n" +
			"file a/b/3 \"3\" mode=0600\nfile a/b/4 \"4\" mode=0600\nfile a/b/5 \"5\" mode=0600"
		u.merged(want)
		u.upper(want)
	}},
}

func writePiece(path string, off int64, data string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, []byte(data), off)
	return err
}
