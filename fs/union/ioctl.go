package union

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The ioctls of linux/fs.h that read and set the flags of a file (chattr(1)); the kernel's FUSE client sends no others
// for a file system like this one.
const (
	fsIocGetFlags    = 0x80086601
	fsIocSetFlags    = 0x40086602
	fsIocFsGetXattr  = 0x801c581f
	fsIocFsSetXattr  = 0x401c5820
	fsIocGetVersion  = 0x80087601
	largestIoctlSize = 32 // bytes; struct fsxattr has 28
)

// Ioctl implements fuse.RawFileSystem. Setting flags is a change and copies up (ovl_fileattr_set).
func (fs *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	switch in.Cmd {
	case fsIocGetFlags, fsIocFsGetXattr, fsIocGetVersion:
	case fsIocSetFlags, fsIocFsSetXattr:
		if err := fs.ensureUpper(n, copyUpFor{data: true, caller: by(&in.InHeader, cancel)}); err != nil {
			return fs.nodeStatus("ioctl", n, err)
		}
	default:
		return fuse.Status(unix.ENOTTY)
	}
	fd, _, err := openNode(n, unix.O_RDONLY)
	if err != nil {
		return fs.nodeStatus("ioctl", n, err)
	}
	defer unix.Close(fd)
	var arg [largestIoctlSize]byte
	copy(arg[:], inbuf)
	if in.Cmd == fsIocSetFlags || in.Cmd == fsIocFsSetXattr {
		if err := fs.protect(n, in.Cmd, arg[:]); err != nil {
			return fs.nodeStatus("ioctl", n, err)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(in.Cmd), uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fs.nodeStatus("ioctl", n, errno)
	}
	if fs.kernel != nil && (in.Cmd == fsIocSetFlags || in.Cmd == fsIocFsSetXattr) {
		fs.kernel.forgetAttributes(n.id) // it changed the time
	}
	if in.Cmd == fsIocGetFlags || in.Cmd == fsIocFsGetXattr {
		fs.showProtection(n, in.Cmd, arg[:])
	}
	copy(outbuf, arg[:])
	return fuse.OK
}
