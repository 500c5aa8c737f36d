package mounttest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setgroups sets the supplementary groups of this thread alone.
func setgroups(groups []uint32) error {
	p := unsafe.Pointer(unsafe.SliceData(append(groups, 0)))
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}
