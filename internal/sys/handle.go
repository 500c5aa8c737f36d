package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// FileHandle returns the type and the bytes of the persistent handle of an object, as name_to_handle_at(2). The
// handle finds the object again after it was renamed. EOPNOTSUPP: its file system has none.
func FileHandle(dirfd int, name string) (typ int32, handle []byte, err error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, err := try1("name_to_handle_at", func() (unix.FileHandle, error) {
		h, _, err := unix.NameToHandleAt(dirfd, name, flags)
		return h, err
	})
	if err != nil {
		return 0, nil, err
	}
	return h.Type(), h.Bytes(), nil
}

// OpenByHandle opens the object with the given handle on the file system that mountfd is on, as O_PATH. ESTALE: it
// is gone. EPERM: the caller lacks CAP_DAC_READ_SEARCH in the initial user namespace.
func OpenByHandle(mountfd int, typ int32, handle []byte) (int, error) {
	return open("open_by_handle_at", func() (int, error) {
		return unix.OpenByHandleAt(mountfd, unix.NewFileHandle(typ, handle), unix.O_PATH|unix.O_CLOEXEC)
	})
}

// fsuuid2 is struct fsuuid2 of linux/fs.h.
type fsuuid2 struct {
	Len  uint8
	UUID [16]uint8
}

const fsIocGetFSUUID = 0x80111500 // FS_IOC_GETFSUUID, Linux 6.9

// FSUUID returns the UUID of the file system that the (not O_PATH) descriptor fd is on. ENOTTY: the file system or
// the kernel (before 6.9) does not tell.
func FSUUID(fd int) ([16]byte, error) {
	var u fsuuid2
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocGetFSUUID, uintptr(unsafe.Pointer(&u))); errno != 0 {
		return [16]byte{}, errno
	}
	if u.Len != 16 {
		return [16]byte{}, unix.ENOTTY
	}
	return u.UUID, nil
}
