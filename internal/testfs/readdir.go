package testfs

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of a directory as getdents64(2) gives it.
type Dirent struct {
	Ino  uint64
	Off  int64 // where the next entry is, for lseek(2)
	Type uint8 // DT_REG and so on
	Name string
}

// ReadDir reads the directory fd from where it stands to its end, with "." and "..".
func ReadDir(fd int) ([]Dirent, error) {
	var list []Dirent
	for {
		some, err := Getdents(fd, 32<<10)
		if err != nil || len(some) == 0 {
			return list, err
		}
		list = append(list, some...)
	}
}

// Getdents is one getdents64(2) with a buffer of size bytes; none and no error at the end.
func Getdents(fd, size int) ([]Dirent, error) {
	b := make([]byte, size)
	n, err := unix.Getdents(fd, b)
	if err != nil {
		return nil, err
	}
	var list []Dirent
	// struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, then the name and a NUL.
	for b = b[:n]; len(b) > 0; {
		reclen := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:reclen], []byte{0})
		list = append(list, Dirent{
			Ino:  binary.NativeEndian.Uint64(b),
			Off:  int64(binary.NativeEndian.Uint64(b[8:])),
			Type: b[18],
			Name: string(name),
		})
		b = b[reclen:]
	}
	return list, nil
}
