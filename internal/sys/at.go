package sys

import "golang.org/x/sys/unix"

// The system calls on one name of an open directory, or on an open file. They are those of package unix, but that a
// [Fault] sees them.

// Openat opens name in dirfd, close-on-exec.
func Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	return open("openat", func() (int, error) { return unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, mode) })
}

// Openat2 is openat2(2).
func Openat2(dirfd int, name string, how *unix.OpenHow) (int, error) {
	return open("openat2", func() (int, error) {
		for {
			fd, err := unix.Openat2(dirfd, name, how)
			if err != unix.EAGAIN { // a rename elsewhere made the kernel unsure
				return fd, err
			}
		}
	})
}

// open makes a system call that returns a descriptor, or -1.
func open(call string, do func() (int, error)) (int, error) {
	fd := -1
	err := try(call, func() error {
		return Retry(func() (err error) {
			fd, err = do()
			return err
		})
	})
	return fd, err
}

// Dup is F_DUPFD_CLOEXEC of fcntl(2).
func Dup(fd int) (int, error) {
	return open("fcntl", func() (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) })
}

// Mkdirat is mkdirat(2).
func Mkdirat(dirfd int, name string, mode uint32) error {
	return try("mkdirat", func() error { return unix.Mkdirat(dirfd, name, mode) })
}

// Mknodat is mknodat(2).
func Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return try("mknodat", func() error { return unix.Mknodat(dirfd, name, mode, dev) })
}

// Symlinkat is symlinkat(2).
func Symlinkat(target string, dirfd int, name string) error {
	return try("symlinkat", func() error { return unix.Symlinkat(target, dirfd, name) })
}

// Linkat is linkat(2).
func Linkat(fromfd int, from string, tofd int, to string, flags int) error {
	return try("linkat", func() error { return unix.Linkat(fromfd, from, tofd, to, flags) })
}

// Unlinkat is unlinkat(2).
func Unlinkat(dirfd int, name string, flags int) error {
	return try("unlinkat", func() error { return unix.Unlinkat(dirfd, name, flags) })
}

// Renameat2 is renameat2(2).
func Renameat2(fromfd int, from string, tofd int, to string, flags uint) error {
	return try("renameat2", func() error { return unix.Renameat2(fromfd, from, tofd, to, flags) })
}

// Fstatat is fstatat(2).
func Fstatat(dirfd int, name string, st *unix.Stat_t, flags int) error {
	return try("fstatat", func() error { return unix.Fstatat(dirfd, name, st, flags) })
}

// Statx is statx(2).
func Statx(dirfd int, name string, flags, mask int, stx *unix.Statx_t) error {
	return try("statx", func() error { return unix.Statx(dirfd, name, flags, mask, stx) })
}

// Readlinkat is readlinkat(2).
func Readlinkat(dirfd int, name string, buf []byte) (int, error) {
	return try1("readlinkat", func() (int, error) { return unix.Readlinkat(dirfd, name, buf) })
}

// Fchownat is fchownat(2).
func Fchownat(dirfd int, name string, uid, gid, flags int) error {
	return try("fchownat", func() error { return unix.Fchownat(dirfd, name, uid, gid, flags) })
}

// Fchmodat is fchmodat(2), which follows symbolic links.
func Fchmodat(dirfd int, name string, mode uint32) error {
	return try("fchmodat", func() error { return unix.Fchmodat(dirfd, name, mode, 0) })
}

// Utimensat is utimensat(2).
func Utimensat(dirfd int, name string, ts *[2]unix.Timespec, flags int) error {
	return try("utimensat", func() error { return unix.UtimesNanoAt(dirfd, name, ts[:], flags) })
}

// Ftruncate is ftruncate(2).
func Ftruncate(fd int, size int64) error {
	return try("ftruncate", func() error {
		return Retry(func() error { return unix.Ftruncate(fd, size) })
	})
}

// Fsync is fsync(2).
func Fsync(fd int) error {
	return try("fsync", func() error {
		return Retry(func() error { return unix.Fsync(fd) })
	})
}

// Fdatasync is fdatasync(2).
func Fdatasync(fd int) error {
	return try("fdatasync", func() error {
		return Retry(func() error { return unix.Fdatasync(fd) })
	})
}

// PreadAll reads len(b) bytes at off, less where the file ends before.
func PreadAll(fd int, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		got, err := try1("pread", func() (int, error) { return unix.Pread(fd, b[n:], off+int64(n)) })
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 {
			return n, err
		}
		n += got
	}
	return n, nil
}

// PwriteAll writes all of b at off.
func PwriteAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := try1("pwrite", func() (int, error) { return unix.Pwrite(fd, b, off) })
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
