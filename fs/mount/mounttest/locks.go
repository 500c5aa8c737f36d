package mounttest

import (
	"golang.org/x/sys/unix"
)

var locks = []check{
	{"flock", func(u *union) {
		u.onUpper = "file up"
		u.mount("file low\ndir d")
		for _, name := range []string{"up", "low", "d"} {
			a, b := u.open(name, unix.O_RDONLY, 0), u.open(name, unix.O_RDONLY, 0)
			u.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
			u.fails(unix.EWOULDBLOCK, unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
			u.fails(unix.EWOULDBLOCK, unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
			u.ok(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
			u.ok(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
			u.ok(unix.Flock(a, unix.LOCK_UN))
			u.ok(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
			u.close(b)
			u.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
		}
		u.upper("file up") // locking copies nothing
	}},
	{"ranges", func(u *union) {
		u.mount(`file f "0123456789"`)
		a, b := u.open("f", unix.O_RDWR, 0), u.open("f", unix.O_RDWR, 0)
		u.ok(lockRange(a, unix.F_WRLCK, 0, 5))
		u.ok(lockRange(b, unix.F_WRLCK, 5, 5))
		u.fails(unix.EAGAIN, lockRange(b, unix.F_RDLCK, 4, 2))
		u.fails(unix.EAGAIN, lockRange(a, unix.F_WRLCK, 0, 0))
		test := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 10}
		u.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &test))
		equal(u, test.Type, int16(unix.F_WRLCK))
		equal(u, test.Len, 5)
		u.ok(lockRange(a, unix.F_UNLCK, 0, 0))
		u.ok(lockRange(b, unix.F_RDLCK, 0, 0))
	}},
	{"held over copy-up", func(u *union) {
		u.mount(`file f "x"`)
		ro := u.open("f", unix.O_RDONLY, 0)
		u.ok(unix.Flock(ro, unix.LOCK_EX|unix.LOCK_NB))
		u.ok(lockRange(ro, unix.F_RDLCK, 0, 0))
		rw := u.open("f", unix.O_RDWR, 0)
		u.writeAt(rw, 0, "y")
		u.fails(unix.EWOULDBLOCK, unix.Flock(rw, unix.LOCK_SH|unix.LOCK_NB))
		u.fails(unix.EAGAIN, lockRange(rw, unix.F_WRLCK, 0, 0))
		u.close(ro)
		u.ok(unix.Flock(rw, unix.LOCK_EX|unix.LOCK_NB))
		u.ok(lockRange(rw, unix.F_WRLCK, 0, 0))
	}},
}

// lockRange sets or removes a lock of an open file description on n bytes from start; 0 is all.
func lockRange(fd int, kind int16, start, n int64) error {
	l := unix.Flock_t{Type: kind, Start: start, Len: n}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
}
