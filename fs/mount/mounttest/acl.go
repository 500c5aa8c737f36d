package mounttest

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// The tags of entries, and the id of those that need none, as in linux/posix_acl.h.
const (
	userObj, userTag, groupObj, groupTag, maskTag, otherTag = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

	noID = 0xffffffff
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// aclValue is an ACL as linux/posix_acl_xattr.h lays it out.
func aclValue(entries ...aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

// aclFor lets user 1000 do perm; mask bounds what it and the group may.
func aclFor(owner, perm, group, mask, other uint16) string {
	return aclValue(aclEntry{userObj, owner, noID}, aclEntry{userTag, perm, 1000}, aclEntry{groupObj, group, noID},
		aclEntry{maskTag, mask, noID}, aclEntry{otherTag, other, noID})
}

func (u *union) setACL(path, name, value string) {
	u.Helper()
	u.ok(unix.Setxattr(path, name, []byte(value), 0))
}

func (u *union) wantACL(name, xattr, want string) {
	u.Helper()
	got, err := u.getxattr(name, xattr)
	u.ok(err)
	if got != want {
		u.Fatalf("%s of %s is %x, want %x", xattr, name, got, want)
	}
}

var acl = []check{
	{"an access ACL decides", func(u *union) {
		u.layers("file f \"x\" mode=0600\nfile g \"x\" mode=0666\ndir d mode=0700\nfile d/f mode=0666")
		u.setACL(u.low(0, "f"), accessACL, aclFor(6, 6, 0, 6, 0))
		u.setACL(u.low(0, "g"), accessACL, aclFor(6, 0, 6, 6, 6))
		u.editsLower = true
		u.remount()
		u.setACL(u.path("d"), accessACL, aclFor(7, 5, 0, 7, 0))
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.append("f", "y")
			u.fails(unix.EACCES, u.openErr("g", unix.O_RDONLY, 0))
			u.stat("d/f")
			u.fails(unix.EACCES, u.mkdir("d/new"))
		})
		u.as(user{uid: 1001, gid: 1001}, func() {
			u.fails(unix.EACCES, u.openErr("f", unix.O_RDONLY, 0))
			u.append("g", "y")
			_, err := u.lstat("d/f")
			u.fails(unix.EACCES, err)
		})
	}},
	{"copy-up keeps ACLs", func(u *union) {
		u.layers("file f mode=0640\ndir d")
		u.setACL(u.low(0, "f"), accessACL, aclFor(6, 4, 4, 4, 0))
		u.setACL(u.low(0, "d"), accessACL, aclFor(7, 7, 5, 7, 5))
		u.setACL(u.low(0, "d"), defaultACL, aclFor(7, 7, 5, 7, 0))
		u.editsLower = true
		u.remount()
		u.ok(u.setxattr("f", "user.x", "1"))
		u.ok(u.setxattr("d", "user.x", "1"))
		u.wantACL("f", accessACL, aclFor(6, 4, 4, 4, 0))
		u.wantACL("d", accessACL, aclFor(7, 7, 5, 7, 5))
		u.wantACL("d", defaultACL, aclFor(7, 7, 5, 7, 0))
		u.remount()
		u.wantACL("f", accessACL, aclFor(6, 4, 4, 4, 0))
	}},
	{"a default ACL is inherited", func(u *union) {
		u.mount("dir d mode=0777\nfile d/gone\ndir d/gonedir")
		u.setACL(u.path("d"), defaultACL, aclFor(7, 7, 5, 7, 0))
		u.ok(u.unlink("d/gone"))
		u.ok(u.rmdir("d/gonedir"))
		u.as(user{uid: 1001, gid: 1001, umask: 0o077}, func() { // where there is a default ACL, umask is nothing
			for _, name := range []string{"d/f", "d/gone"} {
				u.close(u.open(name, unix.O_CREAT|unix.O_WRONLY, 0o666))
				equal(u, u.stat(name).Mode&0o7777, 0o660)
				u.wantACL(name, accessACL, aclFor(6, 7, 5, 6, 0))
			}
			for _, name := range []string{"d/d", "d/gonedir"} {
				u.ok(unix.Mkdir(u.path(name), 0o755))
				equal(u, u.stat(name).Mode&0o7777, 0o750)
				u.wantACL(name, accessACL, aclFor(7, 7, 5, 5, 0))
				u.wantACL(name, defaultACL, aclFor(7, 7, 5, 7, 0))
			}
			u.ok(u.mknod("d/p", unix.S_IFIFO|0o600, 0))
			u.wantACL("d/p", accessACL, aclFor(6, 7, 5, 0, 0))
			u.ok(u.symlink("x", "d/s"))
			_, err := u.getxattr("d/s", accessACL)
			u.fails(unix.EOPNOTSUPP, err)
			fd := u.open("d", unix.O_TMPFILE|unix.O_WRONLY, 0o666)
			equal(u, u.fstat(fd).Mode&0o7777, 0o660)
		})
		u.remount()
		u.wantACL("d/f", accessACL, aclFor(6, 7, 5, 6, 0))
		u.wantACL("d/gonedir", defaultACL, aclFor(7, 7, 5, 7, 0))
	}},
	{"mode and ACL go together", func(u *union) {
		u.mount("file f mode=0600")
		u.setACL(u.path("f"), accessACL, aclFor(6, 7, 5, 5, 4))
		equal(u, u.stat("f").Mode&0o7777, 0o654)
		u.ok(u.chmod("f", 0o721))
		u.wantACL("f", accessACL, aclFor(7, 7, 5, 2, 1))
		// One that says no more than a mode becomes the mode.
		u.setACL(u.path("f"), accessACL, aclValue(aclEntry{userObj, 6, noID}, aclEntry{groupObj, 4, noID}, aclEntry{otherTag, 0, noID}))
		equal(u, u.stat("f").Mode&0o7777, 0o640)
		_, err := u.getxattr("f", accessACL)
		u.fails(unix.ENODATA, err)
		u.upper("file f mode=0640")
	}},
	{"removing, and who may", func(u *union) {
		u.mount("file f mode=0600\ndir d\nfile mine mode=0600 owner=1000:1000")
		u.setACL(u.path("f"), accessACL, aclFor(6, 4, 4, 4, 0))
		u.setACL(u.path("d"), defaultACL, aclFor(7, 7, 5, 7, 0))
		u.ok(u.removexattr("f", accessACL))
		u.ok(u.removexattr("d", defaultACL))
		equal(u, u.listxattr("f"), "")
		equal(u, u.listxattr("d"), "")
		u.fails(unix.EACCES, u.setxattr("f", defaultACL, aclFor(7, 7, 5, 7, 0)))
		u.fails(unix.EINVAL, u.setxattr("f", accessACL, "\x02\x00\x00\x00odd"))
		u.as(user{uid: 1000, gid: 1000}, func() {
			u.fails(unix.EPERM, u.setxattr("f", accessACL, aclFor(6, 4, 4, 4, 0)))
			u.setACL("mine", accessACL, aclFor(6, 4, 4, 4, 0))
		})
	}},
	{"setting one drops set-gid for those outside the group", func(u *union) {
		u.mount("file f mode=2755 owner=1000:4242")
		u.as(user{uid: 1000, gid: 1000}, func() { u.setACL("f", accessACL, aclFor(7, 5, 5, 5, 5)) })
		equal(u, u.stat("f").Mode&0o7777, 0o755)
	}},
}
