package doctor

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// fuse looks at FUSE by making a file system that is never mounted, and reading what the kernel offers to its server.
func fuse() []Check {
	fsfd, problem := openFS(nameFuse, "fuse")
	dev, devCheck := openDevice()
	if problem != nil {
		if dev != nil {
			dev.Close()
		}
		return []Check{*problem, devCheck}
	}
	defer unix.Close(fsfd)
	if dev == nil {
		return []Check{ok(nameFuse, "in this kernel"), devCheck}
	}
	defer dev.Close()
	offer, err := offered(fsfd, dev)
	if err != nil {
		return []Check{fail(nameFuse, "", "%v", err), devCheck}
	}
	return []Check{
		ok(nameFuse, "can be mounted, protocol %d.%d", offer.major, offer.minor),
		devCheck,
		passthrough(offer),
		ioUring(offer),
	}
}

func openDevice() (*os.File, Check) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case err == nil:
		return dev, ok(nameDevFuse, "can be opened")
	case os.IsNotExist(err):
		return nil, fail(nameDevFuse, "modprobe fuse; in a container, pass the device in: --device /dev/fuse", "does not exist")
	case os.IsPermission(err):
		return nil, fail(nameDevFuse, "run as root, or chmod 666 /dev/fuse", "not permitted to open it")
	}
	return nil, fail(nameDevFuse, "", "%v", err)
}

// offer is what the kernel says of itself in FUSE_INIT.
type offer struct {
	major, minor uint32
	flags        uint64
}

// Bits of FUSE_INIT, from include/uapi/linux/fuse.h.
const (
	flagInitExt     = 1 << 30 // the upper half of the flags counts
	flagPassthrough = 1 << 37
	flagIOUring     = 1 << 41
)

// offered makes the file system that fsfd configures, with dev as its server, and reads the first request, which is
// FUSE_INIT: struct fuse_in_header of 40 bytes, and struct fuse_init_in. It is never answered.
func offered(fsfd int, dev *os.File) (offer, error) {
	for _, option := range []struct{ key, value string }{
		{"fd", strconv.Itoa(int(dev.Fd()))},
		{"rootmode", "40000"},
		{"user_id", strconv.Itoa(os.Getuid())},
		{"group_id", strconv.Itoa(os.Getgid())},
	} {
		if err := unix.FsconfigSetString(fsfd, option.key, option.value); err != nil {
			return offer{}, fmt.Errorf("fsconfig %s: %w", option.key, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return offer{}, fmt.Errorf("fsconfig create: %w", err)
	}
	request := make([]byte, 128<<10) // at least FUSE_MIN_READ_BUFFER
	n, err := unix.Read(int(dev.Fd()), request)
	if err != nil {
		return offer{}, fmt.Errorf("read /dev/fuse: %w", err)
	}
	const header, opInit = 40, 26
	if n < header+16 || binary.NativeEndian.Uint32(request[4:]) != opInit {
		return offer{}, fmt.Errorf("the first FUSE request, of %d bytes, is not INIT", n)
	}
	in := request[header:n]
	o := offer{
		major: binary.NativeEndian.Uint32(in),
		minor: binary.NativeEndian.Uint32(in[4:]),
		flags: uint64(binary.NativeEndian.Uint32(in[12:])),
	}
	if o.flags&flagInitExt != 0 && len(in) >= 20 {
		o.flags |= uint64(binary.NativeEndian.Uint32(in[16:])) << 32
	}
	return o, nil
}

// passthrough tells whether files can be read by the kernel past the server, which takes CAP_SYS_ADMIN in the
// initial user namespace.
func passthrough(o offer) Check {
	const name = "fuse passthrough"
	if o.flags&flagPassthrough == 0 {
		return warn(name, "Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH", "not in this kernel; file data go through the server")
	}
	if os.Geteuid() != 0 || !initialUserNS() {
		return warn(name, "run as root of the host", "not permitted; file data go through the server")
	}
	return ok(name, "offered")
}

// ioUring tells whether requests can be served over io_uring: the FUSE module must offer it, and io_uring_setup(2)
// must be allowed.
func ioUring(o offer) Check {
	const name = "fuse io_uring"
	if o.flags&flagIOUring == 0 {
		if transport.SwitchedOff() {
			return warn(name, "echo Y > "+transport.Parameter, "switched off")
		}
		return warn(name, "Linux 6.14 or later with CONFIG_FUSE_IO_URING", "not in this kernel")
	}
	params := make([]byte, 120) // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return warn(name, "sysctl kernel.io_uring_disabled=0; in a container, allow it in the seccomp profile", "io_uring_setup: %v", errno)
	}
	unix.Close(int(fd))
	return ok(name, "offered, and io_uring is allowed")
}
