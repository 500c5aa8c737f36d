package sys

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of a directory as getdents64(2) gives it. Name is valid only inside the callback.
type Dirent struct {
	Ino  uint64
	Type uint8 // unix.DT_*; DT_UNKNOWN where the file system does not tell
	Name []byte
}

var direntBufs = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Dirents calls f for every entry of the directory fd but "." and "..", from the start. It stops at the first
// error, of the system or of f.
func Dirents(fd int, f func(Dirent) error) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	pooled := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(pooled)
	for {
		n, err := try1("getdents", func() (int, error) { return unix.Getdents(fd, *pooled) })
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for buf := (*pooled)[:n]; len(buf) > 0; {
			// struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name NUL-terminated
			reclen := binary.NativeEndian.Uint16(buf[16:])
			name := buf[19:reclen]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			e := Dirent{Ino: binary.NativeEndian.Uint64(buf), Type: buf[18], Name: name}
			buf = buf[reclen:]
			if string(e.Name) == "." || string(e.Name) == ".." {
				continue
			}
			if err := f(e); err != nil {
				return err
			}
		}
	}
}
