package mounttest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var perms = []check{
	{"root without capabilities", func(u *union) {
		u.onUpper = "file f \"text\" mode=0666 trusted.x=\"1\" user.y=\"1\"\nfile g mode=0666"
		u.mount("file low mode=0666 trusted.x=\"1\"")
		for _, name := range []string{"f", "g"} {
			u.ok(u.chmod(name, 0o6777))
		}
		equal(u, u.listxattr("f"), "trusted.x user.y")
		fd := u.open("g", unix.O_WRONLY, 0)
		u.ok(unix.Fallocate(fd, 0, 0, 10))
		equal(u, u.stat("g").Mode, unix.S_IFREG|0o6777)
		u.as(user{}, func() {
			u.ok(dropCapabilities(unix.CAP_SYS_ADMIN, unix.CAP_FSETID))
			equal(u, u.listxattr("f"), "user.y")
			equal(u, u.listxattr("low"), "")
			fd := u.open("f", unix.O_WRONLY, 0)
			u.ok(unix.Fallocate(fd, 0, 0, 10))
			equal(u, u.stat("f").Mode, unix.S_IFREG|0o777)
		})
	}},
	{"mode and owner decide", func(u *union) {
		u.onUpper = "file up \"u\" mode=0600"
		u.mount(`file mine "m" mode=0600 owner=65534:65534
			file theirs "t" mode=0600
			file readable "r" mode=0644
			file writable "w" mode=0666
			dir closed mode=0700
			file closed/f mode=0666
			dir mydir owner=65534:65534
			file mydir/f "f"`)
		u.as(user{uid: nobody, gid: nobody}, func() {
			u.append("mine", "+")
			u.append("writable", "+")
			equal(u, u.read("readable"), "r")
			for _, name := range []string{"theirs", "up", "closed/f"} {
				u.fails(unix.EACCES, u.openErr(name, unix.O_RDONLY, 0))
			}
			u.fails(unix.EACCES, u.openErr("readable", unix.O_WRONLY, 0))
			u.fails(unix.EACCES, u.openErr("readable", unix.O_RDONLY|unix.O_TRUNC, 0))
			u.fails(unix.EACCES, u.truncate("readable", 0))
			u.fails(unix.EACCES, u.openErr("new", unix.O_CREAT|unix.O_WRONLY, 0o600))
			u.fails(unix.EACCES, u.mkdir("new"))
			u.fails(unix.EACCES, u.unlink("mine"))
			u.fails(unix.EACCES, u.rename("mine", "x"))
			u.fails(unix.EPERM, u.chmod("writable", 0o600))
			u.fails(unix.EPERM, u.chown("mine", 0, 0))
			u.fails(unix.EPERM, u.utimes("writable", 5))
			u.fails(unix.EACCES, u.setxattr("readable", "user.x", "1"))
			u.fails(unix.EACCES, unix.Access("theirs", unix.R_OK))
			u.ok(u.chmod("mine", 0o640))
			u.ok(u.unlink("mydir/f"))
			u.write("mydir/new", "n")
		})
		u.upper(`file mine "m+" mode=0640 owner=65534:65534
			dir mydir owner=65534:65534
			whiteout mydir/f
			file mydir/new "n" owner=65534:65534
			file up "u" mode=0600
			file writable "w+" mode=0666`)
	}},
	{"what is made belongs to its maker", func(u *union) {
		u.mount("dir d mode=0777\nfile d/old")
		u.ok(u.unlink("d/old"))
		u.as(user{uid: 1000, gid: 1001}, func() {
			u.write("d/f", "")
			u.write("d/old", "")
			u.ok(u.mkdir("d/d"))
			u.ok(u.symlink("x", "d/s"))
			u.ok(u.mknod("d/p", unix.S_IFIFO|0o644, 0))
			u.fails(unix.EPERM, u.mknod("d/c", unix.S_IFCHR|0o644, unix.Mkdev(1, 3)))
		})
		u.merged("dir d mode=0777\nfile d/f owner=1000:1001\nfile d/old owner=1000:1001\ndir d/d owner=1000:1001\n" +
			"symlink d/s -> x owner=1000:1001\nfifo d/p owner=1000:1001")
	}},
	{"groups", func(u *union) {
		u.mount("file f \"x\" mode=0060 owner=0:4242\ndir d mode=0070 owner=0:4242")
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.fails(unix.EACCES, u.openErr("f", unix.O_RDWR, 0))
		})
		u.as(user{uid: 1000, gid: 1000, groups: []int{1, 4242}}, func() {
			u.append("f", "y")
			u.write("d/new", "")
		})
		u.merged("file f \"xy\" mode=0060 owner=0:4242\ndir d mode=0070 owner=0:4242\nfile d/new owner=1000:1000")
	}},
	{"umask", func(u *union) {
		u.mount("dir d\nfile d/gone")
		u.ok(u.unlink("d/gone"))
		u.as(user{umask: 0o027}, func() {
			for _, name := range []string{"d/f", "d/gone"} {
				u.close(u.open(name, unix.O_CREAT|unix.O_WRONLY, 0o666))
			}
			u.ok(unix.Mkdir("d/d", 0o777))
			u.ok(u.mknod("d/p", unix.S_IFIFO|0o666, 0))
			u.ok(u.mknod("d/r", unix.S_IFREG|0o777, 0))
			fd := u.open("d", unix.O_TMPFILE|unix.O_WRONLY, 0o666)
			equal(u, u.fstat(fd).Mode&0o7777, 0o640)
		})
		u.merged("dir d\nfile d/f mode=0640\nfile d/gone mode=0640\ndir d/d mode=0750\nfifo d/p mode=0640\nfile d/r mode=0750")
	}},
	{"set-gid directories pass on their group", func(u *union) {
		u.mount("dir d mode=2777 owner=0:4242\nfile d/gone\ndir d/gonedir")
		u.ok(u.unlink("d/gone"))
		u.ok(u.rmdir("d/gonedir"))
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.write("d/f", "")
			u.write("d/gone", "")
			u.ok(u.mkdir("d/d"))
			u.ok(u.mkdir("d/gonedir"))
			u.ok(u.mkdir("d/d/e"))
			u.ok(u.symlink("x", "d/s"))
		})
		u.merged(`dir d mode=2777 owner=0:4242
			file d/f owner=1000:4242
			file d/gone owner=1000:4242
			dir d/d mode=2755 owner=1000:4242
			dir d/gonedir mode=2755 owner=1000:4242
			dir d/d/e mode=2755 owner=1000:4242
			symlink d/s -> x owner=1000:4242`)
	}},
	{"set-gid is not for those outside the group", func(u *union) {
		u.mount("dir d mode=2777 owner=0:4242\nfile mine mode=0755 owner=1000:4242")
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.close(u.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o2755))
			u.ok(u.chmod("mine", 0o2755))
		})
		u.as(user{uid: 1000, gid: 1000, groups: []int{4242}}, func() {
			u.close(u.open("d/g", unix.O_CREAT|unix.O_WRONLY, 0o2755))
		})
		u.merged("dir d mode=2777 owner=0:4242\nfile d/f mode=0755 owner=1000:4242\nfile d/g mode=2755 owner=1000:4242\nfile mine mode=0755 owner=1000:4242")
	}},
	{"sticky directories", func(u *union) {
		u.mount("dir d mode=1777\nfile d/root\nfile d/mine owner=1000:1000\ndir d/rootdir")
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.fails(unix.EPERM, u.unlink("d/root"))
			u.fails(unix.EPERM, u.rename("d/root", "d/x"))
			u.fails(unix.EPERM, u.rmdir("d/rootdir"))
			u.fails(unix.EPERM, u.rename("d/mine", "d/root"))
			u.ok(u.unlink("d/mine"))
		})
		u.merged("dir d mode=1777\nfile d/root\ndir d/rootdir")
	}},
	{"writing drops set-id bits", func(u *union) {
		const lower = "file w \"0123\" mode=6777\nfile t \"0123\" mode=6777\nfile o \"0123\" mode=6777\nfile a \"0123\" mode=6777\nfile c \"0123\" mode=6777\nfile root \"0123\" mode=6777"
		u.mount(lower)
		u.as(user{uid: 1000, gid: 1000}, func() {
			fd := u.open("w", unix.O_WRONLY, 0)
			equal(u, u.stat("w").Mode&0o7777, 0o6777) // not yet
			u.writeAt(fd, 0, "x")
			u.ok(u.truncate("t", 2))
			u.close(u.open("o", unix.O_WRONLY|unix.O_TRUNC, 0))
			u.ok(unix.Fallocate(u.open("a", unix.O_WRONLY, 0), 0, 0, 5))
			_, err := unix.CopyFileRange(u.open("a", unix.O_RDONLY, 0), nil, u.open("c", unix.O_WRONLY, 0), nil, 2, 0)
			u.ok(err)
		})
		u.append("root", "+")
		for _, name := range []string{"w", "t", "o", "a", "c"} {
			if mode := u.stat(name).Mode & 0o7777; mode != 0o777 {
				u.Errorf("%s has mode %o", name, mode)
			}
		}
		equal(u, u.stat("root").Mode&0o7777, 0o6777)
		u.remount()
		equal(u, u.stat("w").Mode&0o7777, 0o777)
	}},
	{"set-gid without execution is dropped for those outside the group", func(u *union) {
		var lower strings.Builder
		for _, who := range []string{"out", "in", "group", "root"} {
			for _, how := range []string{"w", "t", "o", "a", "c"} {
				fmt.Fprintf(&lower, "file %s.%s \"0123\" mode=6666 owner=0:4242\n", who, how)
			}
		}
		u.mount(lower.String())
		change := func(who string) {
			u.writeAt(u.open(who+".w", unix.O_WRONLY, 0), 0, "x")
			u.ok(u.truncate(who+".t", 2))
			u.close(u.open(who+".o", unix.O_WRONLY|unix.O_TRUNC, 0))
			u.ok(unix.Fallocate(u.open(who+".a", unix.O_WRONLY, 0), 0, 0, 5))
			_, err := unix.CopyFileRange(u.open(who+".a", unix.O_RDONLY, 0), nil, u.open(who+".c", unix.O_WRONLY, 0), nil, 2, 0)
			u.ok(err)
		}
		u.as(user{uid: 1000, gid: 1000, groups: []int{1, 2}}, func() { change("out") })
		u.as(user{uid: 1000, gid: 1000, groups: []int{1, 4242}}, func() { change("in") })
		u.as(user{uid: 1000, gid: 4242}, func() { change("group") })
		change("root")
		for who, want := range map[string]uint32{"out": 0o666, "in": 0o2666, "group": 0o2666, "root": 0o6666} {
			for _, how := range []string{"w", "t", "o", "a", "c"} {
				if mode := u.stat(who+"."+how).Mode & 0o7777; mode != want {
					u.Errorf("%s.%s has mode %o, want %o", who, how, mode, want)
				}
			}
		}
	}},
	{"a change of owner drops set-id bits", func(u *union) {
		u.mount("file x \"0123\" mode=6755\nfile n \"0123\" mode=6644\ndir d mode=6755")
		for _, name := range []string{"x", "n", "d"} {
			u.ok(u.chown(name, 1000, 1000))
		}
		// Without execution for the group, set-gid is no set-gid, and root may keep it.
		u.merged("dir d mode=6755 owner=1000:1000\nfile n \"0123\" mode=2644 owner=1000:1000\nfile x \"0123\" mode=0755 owner=1000:1000")
	}},
	{"copy-up needs no permission on the directory", func(u *union) {
		u.mount("dir d mode=0755\ndir d/e mode=0755\nfile d/e/f \"x\" mode=0666")
		u.as(user{uid: nobody, gid: nobody}, func() { u.append("d/e/f", "y") })
		u.upper("dir d\ndir d/e\nfile d/e/f \"xy\" mode=0666")
	}},
	{"directories that their owner may not write", func(u *union) {
		u.mount("dir d mode=0777")
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.ok(unix.Mkdir("d/ro", 0o555))
			u.fails(unix.EACCES, u.mkdir("d/ro/x"))
			u.ok(u.chmod("d/ro", 0o755))
			u.ok(u.mkdir("d/ro/x"))
		})
	}},
	{"a file that is open needs no permission any more", func(u *union) {
		u.mount("file f \"x\" mode=0666 owner=1000:1000")
		u.as(user{uid: 1000, gid: 1000}, func() {
			ro, rw := u.open("f", unix.O_RDONLY, 0), u.open("f", unix.O_RDWR, 0)
			u.ok(u.chmod("f", 0))
			u.writeAt(rw, 0, "y")
			equal(u, u.readFD(ro), "y")
			u.fails(unix.EACCES, u.openErr("f", unix.O_RDONLY, 0))
		})
	}},
}
