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
