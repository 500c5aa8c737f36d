package sys

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// getxattrat(2), Linux 6.13, reads an attribute of a name in a directory. Before it there was only the way by a path
// through /proc, which is looked up every time.

// xattrArgs is struct xattr_args of linux/xattr.h, on machines of 64 bits.
type xattrArgs struct {
	value *byte
	size  uint32
	flags uint32
}

// haveGetxattrat tries the call: the version of the kernel does not tell, nor what a filter of system calls lets through.
var haveGetxattrat = sync.OnceValue(func() bool {
	_, err := getxattrat(unix.AT_FDCWD, "/", "user.unionfsd", nil)
	return err != unix.ENOSYS && err != unix.EPERM && err != unix.EACCES
})

// getxattrat does not follow a symbolic link. dirfd may be O_PATH; name is not empty.
func getxattrat(dirfd int, name, attr string, dest []byte) (int, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	key, err := unix.BytePtrFromString(attr)
	if err != nil {
		return -1, err
	}
	args := xattrArgs{size: uint32(len(dest))}
	if len(dest) > 0 {
		args.value = &dest[0]
	}
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dirfd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(key)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
