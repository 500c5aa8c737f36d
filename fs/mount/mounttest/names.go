package mounttest

import (
	"golang.org/x/sys/unix"
)

// names: which object of which layer a name shows.
var names = []check{
	{"the topmost layer wins", func(u *union) {
		u.onUpper = `file a "upper"`
		u.mount("file a \"1\"\nfile b \"1\"", "file a \"2\"\nfile b \"2\"\nfile c \"2\"")
		u.merged("file a \"upper\"\nfile b \"1\"\nfile c \"2\"")
	}},
	{"directories are merged", func(u *union) {
		u.onUpper = "dir d\nfile d/upper"
		u.mount("dir d\nfile d/one\ndir d/sub\nfile d/sub/x", "dir d\nfile d/two\ndir d/sub\nfile d/sub/y")
		u.merged("dir d\nfile d/upper\nfile d/one\nfile d/two\ndir d/sub\nfile d/sub/x\nfile d/sub/y")
	}},
	{"a merged directory looks like its topmost one", func(u *union) {
		u.mount(`dir d mode=0700 owner=1:2 user.x="one"`, `dir d mode=0755 owner=3:4 user.x="two" user.y="two"`)
		u.merged(`dir d mode=0700 owner=1:2 user.x="one"`)
	}},
	{"the root looks like the topmost one", func(u *union) {
		u.onUpper = `dir . mode=0711 owner=5:6`
		u.mount(`dir . mode=0700 owner=1:2`)
		u.merged(`dir . mode=0711 owner=5:6`)
	}},
	{"a directory that a layer lacks is merged across it", func(u *union) {
		u.mount("dir d\nfile d/1", "file x", "dir d\nfile d/3")
		u.merged("dir d\nfile d/1\nfile d/3\nfile x")
	}},
	{"a file hides a directory", func(u *union) {
		u.mount(`file d "file"`, "dir d\nfile d/x")
		u.merged(`file d "file"`)
		_, err := u.lstat("d/x")
		u.fails(unix.ENOTDIR, err)
	}},
	{"a directory hides a file, and what is below that", func(u *union) {
		u.mount("dir d\nfile d/1", "file d", "dir d\nfile d/3")
		u.merged("dir d\nfile d/1")
	}},
	{"a symlink hides a directory", func(u *union) {
		u.mount("symlink d -> e\ndir e\nfile e/x", "dir d\nfile d/y")
		u.merged("symlink d -> e\ndir e\nfile e/x")
		equal(u, u.list("d/"), "x")
	}},
	{"a symlink to a directory does not merge with a directory", func(u *union) {
		u.mount("dir d\nfile d/1", "symlink d -> e\ndir e\nfile e/x")
		u.merged("dir d\nfile d/1\ndir e\nfile e/x")
	}},
	{"a whiteout hides a file", func(u *union) {
		u.onUpper = "whiteout a"
		u.mount("file a\nfile b")
		u.missing("a")
		u.merged("file b")
	}},
	{"a whiteout hides a directory and all in it", func(u *union) {
		u.onUpper = "whiteout d"
		u.mount("dir d\nfile d/x")
		u.missing("d/x")
		u.merged("")
	}},
	{"a whiteout in a middle layer hides what is below it only", func(u *union) {
		u.mount(`file a "top"`, "whiteout a\nwhiteout b", "file a \"low\"\nfile b")
		u.merged(`file a "top"`)
	}},
	{"a whiteout in the lowest layer is hidden", func(u *union) {
		u.mount("dir d", "whiteout a\ndir d\nwhiteout d/b\ndir only\nwhiteout only/c")
		u.missing("a")
		u.missing("d/b")
		u.missing("only/c") // though the kernel lists it: it does not look at what is in a directory of one layer
		equal(u, u.list("d"), "")
	}},
	{"a directory over a whiteout is not merged with what that hides", func(u *union) {
		u.mount("dir d\nfile d/new", "whiteout d", "dir d\nfile d/old")
		u.merged("dir d\nfile d/new")
	}},
	{"an opaque directory is not merged", func(u *union) {
		u.onUpper = "dir d opaque\nfile d/new"
		u.mount("dir d\nfile d/old\ndir d/sub\nfile d/sub/old")
		u.missing("d/sub/old")
		u.merged("dir d\nfile d/new")
	}},
	{"the root of a layer is merged, also if it is opaque", func(u *union) {
		u.onUpper = "dir . opaque\nfile new"
		u.mount("dir . opaque\nfile 1", "file 2")
		u.merged("file new\nfile 1\nfile 2")
	}},
	{"an opaque directory in a middle layer", func(u *union) {
		u.onUpper = "dir d\nfile d/upper"
		u.mount("dir d\nfile d/1", "dir d opaque\nfile d/2", "dir d\nfile d/3")
		u.merged("dir d\nfile d/upper\nfile d/1\nfile d/2")
	}},
	{"an opaque mark does not reach its subdirectories' siblings", func(u *union) {
		u.onUpper = "dir d\ndir d/o opaque\ndir d/m"
		u.mount("dir d\ndir d/o\nfile d/o/x\ndir d/m\nfile d/m/x")
		u.merged("dir d\ndir d/o\ndir d/m\nfile d/m/x")
	}},
	{"whiteouts as files with an xattr", func(u *union) {
		u.mount(`dir d opaque=x
			file d/gone trusted.overlay.whiteout="y"
			file d/kept "x"`,
			"dir d\nfile d/gone \"old\"\nfile d/other")
		u.missing("d/gone")
		u.merged("dir d\nfile d/kept \"x\"\nfile d/other")
	}},
	{"what is not there", func(u *union) {
		u.mount("dir d\nfile f")
		u.missing("x")
		u.missing("d/x")
		u.missing("x/y")
		_, err := u.lstat("f/x")
		u.fails(unix.ENOTDIR, err)
	}},
	{"a name that was looked up in vain can be made", func(u *union) {
		u.mount("dir d")
		u.missing("d/x")
		u.write("d/x", "1")
		equal(u, u.read("d/x"), "1")
	}},
	{"dot and dotdot", func(u *union) {
		u.mount("dir d\ndir d/e\nfile f", "dir d")
		equal(u, u.stat("d/e/../../f").Ino, u.stat("f").Ino)
		equal(u, u.stat("d/./e/..").Ino, u.stat("d").Ino)
	}},
	{"symlinks are resolved by whoever asks", func(u *union) {
		u.onUpper = `file target "upper"`
		u.mount("symlink s -> target\nsymlink abs -> /etc/../proc/self/root\nsymlink up -> ../outside\nsymlink none -> nothing",
			`file target "lower"`)
		equal(u, u.read("s"), "upper")
		equal(u, u.readlink("abs"), "/etc/../proc/self/root")
		equal(u, u.readlink("up"), "../outside")
		u.fails(unix.ENOENT, u.openErr("none", unix.O_RDONLY, 0))
		equal(u, u.stat("s").Size, int64(len("target")))
	}},
	{"odd names", func(u *union) {
		u.mount("file \"with space\" \"1\"\nfile \"new\\nline\" \"2\"\nfile \"\\xff\\xfe\" \"3\"\nfile \",:\\\\\" \"4\"\nfile \"...\" \"5\"")
		for name, want := range map[string]string{"with space": "1", "new\nline": "2", "\xff\xfe": "3", `,:\`: "4", "...": "5"} {
			equal(u, u.read(name), want)
			u.append(name, "+")
		}
		u.remount()
		equal(u, u.read("\xff\xfe"), "3+")
	}},
	{"the same name in many directories", func(u *union) {
		u.onUpper = "whiteout x\ndir a\ndir b\nfile b/x \"b\""
		u.mount("file x \"root\"\ndir a\nfile a/x \"a\"\ndir b\nfile b/x\ndir c\nfile c/x \"c\"")
		u.merged("dir a\nfile a/x \"a\"\ndir b\nfile b/x \"b\"\ndir c\nfile c/x \"c\"")
	}},
	{"inode numbers are unique", func(u *union) {
		u.onUpper = "file u1\nfile u2"
		u.mount("file a1\nfile a2\ndir d", "file b1\nfile b2\ndir e")
		seen := map[uint64]string{}
		for _, name := range []string{"u1", "u2", "a1", "a2", "d", "b1", "b2", "e"} {
			ino := u.stat(name).Ino
			if seen[ino] != "" {
				u.Fatalf("%s and %s have the same inode number", name, seen[ino])
			}
			seen[ino] = name
		}
	}},
}
