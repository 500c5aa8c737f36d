package mounttest

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Flags of chattr(1), as in FS_IOC_GETFLAGS.
const (
	syncFlag   = 0x08
	immutable  = 0x10
	appendOnly = 0x20
	noAtime    = 0x80
	someFlags  = syncFlag | immutable | appendOnly | noAtime
)

// setFlags makes those of someFlags that a file has these.
func setFlags(path string, flags uint32) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := sys.FileFlags(int(f.Fd()))
	if err != nil {
		return err
	}
	return sys.SetFileFlags(int(f.Fd()), before&^someFlags|flags)
}

// lowerFlags sets the flags of a file of the lower layer until the check ends.
func (u *union) lowerFlags(name string, flags uint32) {
	u.Helper()
	u.ok(setFlags(u.low(0, name), flags))
	u.Cleanup(func() { u.ok(setFlags(u.low(0, name), 0)) })
}

// flagsOf returns the flags that the union shows of a file.
func (u *union) flagsOf(name string) uint32 {
	u.Helper()
	fd := u.open(name, unix.O_RDONLY, 0)
	defer u.close(fd)
	flags, err := sys.FileFlags(fd)
	u.ok(err)
	return flags & someFlags
}

// frozen checks that a file can be changed in no way but, if it grows, that one.
func (u *union) frozen(name string, grows bool) {
	u.Helper()
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_APPEND | unix.O_TRUNC} {
		u.fails(unix.EPERM, u.openErr(name, flags, 0))
	}
	if !grows {
		u.fails(unix.EPERM, u.openErr(name, unix.O_WRONLY|unix.O_APPEND, 0))
		u.fails(unix.EPERM, unix.UtimesNanoAt(unix.AT_FDCWD, u.path(name), nil, 0))
	}
	u.fails(unix.EPERM, u.chmod(name, 0o600))
	u.fails(unix.EPERM, u.chown(name, 1, 1))
	u.fails(unix.EPERM, u.utimes(name, 1000))
	u.fails(unix.EPERM, u.truncate(name, 0))
	u.fails(unix.EPERM, u.setxattr(name, "user.a", "1"))
	u.fails(unix.EPERM, u.removexattr(name, "user.x"))
	u.fails(unix.EPERM, u.link(name, "other"))
	u.fails(unix.EPERM, u.unlink(name))
	u.fails(unix.EPERM, u.rename(name, "other"))
	u.fails(unix.EPERM, u.rename("plain", name))
	u.fails(unix.EPERM, u.rename2("plain", name, unix.RENAME_EXCHANGE))
}

var protected = []check{
	{"lower files that are immutable or only grow", func(u *union) {
		u.layers("file i \"i\" user.x=\"1\"\nfile a \"a\" user.x=\"1\"\nfile plain")
		u.lowerFlags("i", immutable)
		u.lowerFlags("a", appendOnly)
		u.remount()
		equal(u, u.flagsOf("i"), immutable)
		u.frozen("i", false)
		u.frozen("a", true)
		u.upper("")
		u.append("a", "+")
		equal(u, u.read("a"), "a+")
		equal(u, u.flagsOf("a"), appendOnly)
		u.frozen("a", true)
		for range 2 {
			u.remount()
			equal(u, u.flagsOf("a"), appendOnly)
			u.frozen("a", true)
			u.append("a", "+")
		}
		u.ok(setFlags(u.path("a"), 0))
		u.write("a", "new")
		u.ok(u.chmod("a", 0o600))
		u.ok(setFlags(u.path("i"), 0))
		u.write("i", "new")
		u.remount()
		equal(u, u.flagsOf("a")|u.flagsOf("i"), 0)
		u.ok(u.unlink("i"))
	}},
	{"lower directories that are immutable or only grow", func(u *union) {
		u.layers("dir i\nfile i/x \"x\"\ndir i/d\ndir a\nfile a/x \"x\"\ndir a/d\nfile plain")
		u.lowerFlags("i", immutable)
		u.lowerFlags("a", appendOnly)
		u.remount()
		for range 3 {
			for _, dir := range []string{"i", "a"} {
				u.fails(unix.EPERM, u.unlink(dir+"/x"))
				u.fails(unix.EPERM, u.rmdir(dir+"/d"))
				u.fails(unix.EPERM, u.rename(dir+"/x", "y"))
				u.fails(unix.EPERM, u.rename("plain", dir+"/x"))
				u.fails(unix.EPERM, u.rmdir(dir))
				u.fails(unix.EPERM, u.chmod(dir, 0o700))
				u.append(dir+"/x", "+") // which copies the directory up
			}
			u.fails(unix.EPERM, u.mkdir("i/new"))
			u.fails(unix.EPERM, u.openErr("i/new", unix.O_CREAT|unix.O_WRONLY, 0o600))
			u.fails(unix.EPERM, u.rename("plain", "i/new"))
			u.fails(unix.EPERM, u.link("plain", "i/new"))
			u.fails(unix.EPERM, u.openErr("i", unix.O_TMPFILE|unix.O_WRONLY, 0o600))
			u.remount()
			equal(u, u.flagsOf("i"), immutable)
			equal(u, u.flagsOf("a"), appendOnly)
		}
		u.write("a/new", "1")
		u.ok(u.rename("plain", "a/plain"))
		u.fails(unix.EPERM, u.unlink("a/new"))
		equal(u, u.read("i/x"), "x+++")
	}},
	{"files of the upper layer", func(u *union) {
		u.onUpper = "file i \"i\" user.x=\"1\"\nfile a \"a\" user.x=\"1\"\nfile plain"
		u.mount("dir low")
		u.ok(setFlags(u.path("i"), immutable))
		u.ok(setFlags(u.path("a"), appendOnly))
		for range 2 {
			u.frozen("i", false)
			u.frozen("a", true)
			u.remount()
		}
		for _, name := range []string{"i", "a"} {
			var b [4]byte
			n, err := unix.Getxattr(u.up(name), "trusted.overlay.protattr", b[:])
			u.ok(err)
			equal(u, string(b[:n]), name)
			u.ok(setFlags(u.path(name), 0))
			_, err = unix.Getxattr(u.up(name), "trusted.overlay.protattr", b[:])
			u.fails(unix.ENODATA, err)
			u.write(name, "again")
		}
	}},
	{"a descriptor from before", func(u *union) {
		u.mount("file f \"f\"\nfile g \"g\"")
		from, to := u.open("f", unix.O_RDONLY, 0), u.open("g", unix.O_RDWR, 0)
		u.ok(setFlags(u.path("g"), immutable))
		u.fails(unix.EPERM, unix.Fallocate(to, 0, 0, 100))
		_, err := unix.CopyFileRange(from, nil, to, nil, 1, 0)
		u.fails(unix.EPERM, err)
		u.ok(unix.Ftruncate(to, 0))
		u.fails(unix.EPERM, u.truncate("g", 0))
		u.ok(setFlags(u.path("g"), 0))
		u.ok(unix.Fallocate(to, 0, 0, 100))
	}},
	{"other flags are copied up", func(u *union) {
		u.layers("dir d\nfile d/f \"f\"\nfile d/empty")
		u.lowerFlags("d", syncFlag)
		u.lowerFlags("d/f", syncFlag|noAtime)
		u.lowerFlags("d/empty", noAtime)
		u.remount()
		u.append("d/f", "+")
		u.ok(u.chmod("d/empty", 0o600))
		for range 2 {
			equal(u, u.flagsOf("d"), syncFlag)
			equal(u, u.flagsOf("d/f"), syncFlag|noAtime)
			equal(u, u.flagsOf("d/empty"), noAtime)
			u.remount()
		}
	}},
}
