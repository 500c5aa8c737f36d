package main

import (
	"bytes"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raiseDescriptors lets this process have as many descriptors as the system allows, if it may say so: a FUSE server
// holds one for each directory that the kernel remembers. Else the Go runtime has raised the limit to the hard one.
//
// The call is a raw one for the runtime not to notice: it then still gives children the limit that we were given.
func raiseDescriptors() {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return
	}
	most, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return
	}
	limit := unix.Rlimit{Cur: most, Max: most}
	// Fails with EPERM without CAP_SYS_RESOURCE, and nothing has changed then.
	_, _, _ = unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}
