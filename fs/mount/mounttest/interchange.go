package mounttest

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// Interchange checks that an upper layer that unions of from wrote shows the same tree in a union of to, that what
// is changed there is seen by from again, and that nothing of what either deleted comes back.
func Interchange(t *testing.T, from, to *Server) {
	testfs.NeedRoot(t)
	for _, c := range interchange {
		t.Run(c.name, func(t *testing.T) {
			u := &union{TB: t, server: from}
			defer u.finish()
			u.layers(c.lower...)
			u.spec.Options = c.options
			u.remount()
			c.first(u)
			shown := testfs.Fingerprint(u.dir, testfs.Options{Since: distantFuture})
			u.server = to
			u.remount()
			u.compareTrees(from, to, shown)
			c.second(u)
			shown = testfs.Fingerprint(u.dir, testfs.Options{Since: distantFuture})
			u.server = from
			u.remount()
			u.compareTrees(to, from, shown)
			u.merged(c.merged)
		})
	}
}

func (u *union) compareTrees(wrote, reads *Server, shown string) {
	u.Helper()
	if d := testfs.Diff(shown, testfs.Fingerprint(u.dir, testfs.Options{Since: distantFuture})); d != "" {
		u.Fatalf("what %s showed (-) is not what %s makes of it (+):\n%s", wrote.name, reads.name, d)
	}
}

// interchange are things done on one backend, then on the other, and the tree that both must show in the end.
var interchange = []struct {
	name          string
	options       layer.Options
	lower         []string
	first, second func(u *union)
	merged        string
}{
	{
		"whiteouts", layer.Options{}, []string{"file a\nfile b\ndir d\nfile d/c\nfile d/e", "file b\ndir d\nfile d/f"},
		func(u *union) {
			u.ok(u.unlink("a"))
			u.ok(u.unlink("d/c"))
			u.ok(u.rename("d/e", "e"))
		},
		func(u *union) {
			u.missing("a")
			u.write("a", "again")
			u.ok(u.unlink("b"))
			u.ok(u.unlink("d/f"))
			u.ok(u.rmdir("d"))
		},
		"file a \"again\"\nfile e",
	},
	{
		"opaque directories", layer.Options{}, []string{"dir d\nfile d/old\ndir d/s\nfile d/s/old\ndir e\nfile e/old"},
		func(u *union) {
			u.ok(u.unlink("d/s/old"))
			u.ok(u.rmdir("d/s"))
			u.ok(u.mkdir("d/s"))
			u.ok(u.unlink("e/old"))
			u.ok(u.rmdir("e"))
			u.ok(u.mkdir("new"))
			u.write("new/x", "x")
			u.ok(u.rename("new", "e"))
		},
		func(u *union) {
			equal(u, u.list("d/s"), "")
			equal(u, u.list("e"), "x")
			u.write("d/s/old", "new")
			u.ok(u.unlink("e/x"))
			u.ok(u.rmdir("e"))
			u.ok(u.mkdir("e"))
		},
		"dir d\nfile d/old\ndir d/s\nfile d/s/old \"new\"\ndir e",
	},
	{
		"copied up with all attributes", layer.Options{}, []string{full + "\nsymlink s -> d\nfifo p mode=0600\nchar c 1:3 owner=1:1"},
		func(u *union) {
			u.ok(u.chmod("d/f", 0o4755))
			u.ok(u.setxattr("d", "user.new", "1"))
			u.ok(u.chown("s", 1, 2))
			u.ok(u.utimes("d/f", old))
		},
		func(u *union) {
			equal(u, u.stat("d/f").Mtim.Sec, old)
			u.append("d/f", "+")
			u.ok(u.chmod("p", 0o640))
			u.ok(u.rename("c", "d/c"))
		},
		`char d/c 1:3 owner=1:1
			dir d mode=0750 owner=10:20 user.d="dir" user.new="1"
			file d/f "0123456789+" mode=4755 owner=30:40 user.f="file"
			fifo p mode=0640
			symlink s -> d owner=1:2`,
	},
	{
		"hard links", layer.Options{}, []string{"file a \"a\"\nhardlink b -> a\ndir d"},
		func(u *union) {
			u.append("a", "1")
			u.ok(u.link("a", "d/a"))
		},
		func(u *union) {
			equal(u, u.stat("a").Nlink, 2)
			u.append("d/a", "2")
			equal(u, u.read("a"), "a12")
			equal(u, u.read("b"), "a")
			u.ok(u.unlink("a"))
		},
		"file b \"a\" nlink=2\ndir d\nfile d/a \"a12\"",
	},
	{
		"ACLs and escaped names", layer.Options{}, []string{"file f\ndir d\nfile d/low"},
		func(u *union) {
			u.setACL(u.path("f"), accessACL, aclFor(6, 6, 4, 6, 0))
			u.setACL(u.path("d"), defaultACL, aclFor(7, 7, 5, 7, 0))
			u.ok(u.setxattr("d", "trusted.overlay.opaque", "y"))
		},
		func(u *union) {
			u.wantACL("f", accessACL, aclFor(6, 6, 4, 6, 0))
			equal(u, u.list("d"), "low")
			u.write("d/new", "")
			u.wantACL("d/new", accessACL, aclFor(6, 7, 5, 4, 0))
			for _, name := range []string{"f", "d/new"} {
				u.ok(u.removexattr(name, accessACL))
			}
			u.ok(u.removexattr("d", defaultACL))
			v, err := u.getxattr("d", "trusted.overlay.opaque")
			u.ok(err)
			equal(u, v, "y")
		},
		"dir d trusted.overlay.opaque=\"y\"\nfile d/low\nfile d/new mode=0640\nfile f mode=0660",
	},
	{
		"sparse files and files without a name", layer.Options{}, []string{"file f size=33554432 data=16777216:\"x\""},
		func(u *union) {
			fd := u.open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o600)
			u.writeAt(fd, 1<<20, "tmp")
			u.ok(unix.Linkat(fd, "", unix.AT_FDCWD, u.path("tmp"), unix.AT_EMPTY_PATH))
			u.append("f", "end")
		},
		func(u *union) { u.ok(u.chmod("tmp", 0o640)) },
		"file f size=33554435 data=16777216:\"x\" data=33554432:\"end\"\nfile tmp size=1048579 data=1048576:\"tmp\" mode=0640",
	},
	{
		"an index", layer.Options{Index: true}, []string{"file a \"1\"\nhardlink b -> a\ndir d\nhardlink d/c -> a\nfile x \"x\"\nhardlink y -> x\nhardlink z -> x"},
		func(u *union) {
			u.append("a", "2")
			u.ok(u.link("b", "new"))
			u.ok(u.unlink("x"))
			u.ok(u.rename("d/c", "c"))
		},
		func(u *union) {
			equal(u, u.stat("b").Ino, u.stat("c").Ino)
			u.append("c", "3")
			equal(u, u.read("a"), "123")
			u.ok(u.unlink("new"))
			equal(u, u.stat("z").Nlink, 2)
			u.ok(u.unlink("y"))
		},
		"file a \"123\" nlink=3\nhardlink b -> a\nhardlink c -> a\ndir d\nfile z \"x\"",
	},
}
