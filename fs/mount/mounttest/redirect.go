package mounttest

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// moved is what a union leaves that has renamed the directory old of the layer below to new.
const moved = "whiteout old\ndir new redirect=old\nfile new/mid \"m\""

var redirects = []check{
	{"a directory that a lower layer has renamed is renamed again", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.mount(moved+"\ndir far", "dir old\nfile old/deep \"d\"")
		u.ok(u.chmod("new", 0o750)) // the copy has no redirect of its own
		u.remount()
		u.ok(u.rename("new", "far/newer"))
		const want = "dir far\ndir far/newer mode=0750\nfile far/newer/mid \"m\"\nfile far/newer/deep \"d\""
		u.merged(want)
		u.remount()
		u.merged(want)
		u.ok(u.rename("far/newer", "newest"))
		u.ok(u.rename("newest", "last"))
		u.remount()
		u.merged("dir far\ndir last mode=0750\nfile last/mid \"m\"\nfile last/deep \"d\"")
	}},
	{"a directory that a lower layer has renamed to another directory is renamed again", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.mount("dir to\nwhiteout from\ndir to/new redirect=/from/old\nfile to/new/mid \"m\"", "dir from\ndir from/old\nfile from/old/deep \"d\"\ndir to")
		u.ok(u.chmod("to/new", 0o750))
		u.remount()
		u.ok(u.rename("to/new", "to/newer"))
		const want = "dir to\ndir to/newer mode=0750\nfile to/newer/mid \"m\"\nfile to/newer/deep \"d\""
		u.merged(want)
		u.remount()
		u.merged(want)
	}},
	{"a path goes through what lower layers have renamed", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.mount(moved+"\ndir to", "dir old\nfile old/deep \"d\"\ndir old/sub\nfile old/sub/low \"l\"\ndir to")
		u.ok(u.rename("new/sub", "to/sub"))
		const want = "dir new\nfile new/mid \"m\"\nfile new/deep \"d\"\ndir to\ndir to/sub\nfile to/sub/low \"l\""
		u.merged(want)
		u.remount()
		u.merged(want)
		u.ok(u.rename("new", "to/new"))
		u.ok(u.rename("to/sub", "to/new/sub"))
		u.remount()
		u.merged("dir to\ndir to/new\nfile to/new/mid \"m\"\nfile to/new/deep \"d\"\ndir to/new/sub\nfile to/new/sub/low \"l\"")
	}},
	{"a path ends at what a lower layer hides", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.onUpper = "dir a redirect=/opaque/x\ndir b redirect=/gone/x\ndir c redirect=/file/x\ndir d redirect=/opaque/back/x"
		u.mount("dir opaque opaque\ndir opaque/x\nfile opaque/x/1\ndir opaque/back redirect=/else\nwhiteout gone\nfile file",
			"dir opaque\ndir opaque/x\nfile opaque/x/2\ndir gone\ndir gone/x\nfile gone/x/1\ndir file\ndir file/x\nfile file/x/1\ndir else\ndir else/x\nfile else/x/1")
		equal(u, u.list("a"), "1")
		equal(u, u.list("b"), "")
		equal(u, u.list("c"), "")
		equal(u, u.list("d"), "1")
	}},
	{"a lower directory moves into one of the upper layer alone, and a merged one", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		u.mount("dir d\nfile d/x \"x\"\ndir d/s\nfile d/s/y \"y\"\ndir e\nfile e/z \"z\"\ndir to")
		u.ok(u.mkdir("new"))
		u.ok(u.rename("d", "new/d"))
		u.ok(u.rename("e", "to/e"))
		const want = "dir new\ndir new/d\nfile new/d/x \"x\"\ndir new/d/s\nfile new/d/s/y \"y\"\ndir to\ndir to/e\nfile to/e/z \"z\""
		u.merged(want)
		u.remount()
		u.merged(want)
		u.ok(u.rename("new/d/s", "new/s"))
		u.remount()
		equal(u, u.read("new/s/y"), "y")
	}},
	{"a path that is too long", func(u *union) {
		u.spec.Options.RedirectDir = layer.RedirectOn
		long := strings.Repeat("n", 250)
		u.mount("dir " + long + "\ndir " + long + "/sub-directory\nfile " + long + "/sub-directory/x\ndir to")
		u.fails(unix.EXDEV, u.rename(long+"/sub-directory", "to/d"))
		u.ok(u.rename(long+"/sub-directory", long+"/d"))
		u.remount()
		equal(u, u.list(long+"/d"), "x")
	}},
}
