package sys

import "golang.org/x/sys/unix"

// Retry repeats f while it fails with EINTR: Go's own preemption signals interrupt system calls.
func Retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Openat opens name in dirfd, close-on-exec.
func Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
