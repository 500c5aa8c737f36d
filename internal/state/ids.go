package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// TakeRange takes the first of n ranges of ids that no other container of this state root has, until the file that it
// returns is closed. It is a lock on the byte of that number, so also a process that is killed lets go of it.
func (r Root) TakeRange(n int) (i int, held *os.File, err error) {
	dir, err := r.sub("")
	if err != nil {
		return 0, nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "ids"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, nil, fmt.Errorf("state: %w", err)
	}
	for i := range n {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(i), Len: 1}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if err == nil {
			return i, f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			f.Close()
			return 0, nil, fmt.Errorf("lock %q: %w", f.Name(), err)
		}
	}
	f.Close()
	return 0, nil, fmt.Errorf("other containers have all %d ranges of ids: end one, or have root lent more in /etc/subuid and /etc/subgid", n)
}
