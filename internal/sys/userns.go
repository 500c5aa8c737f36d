package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// NewUserNamespace returns a user namespace with these maps that nobody is in, for [IDMapMount].
//
// Only a process can make one. So this binary is started in it, traced: the kernel stops it before its first
// instruction, and there it ends.
func NewUserNamespace(uids, gids []syscall.SysProcIDMap) (*os.File, error) {
	runtime.LockOSThread() // the thread that starts a traced process is its tracer
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess("/proc/self/exe", []string{"unionfsd-ids"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: uids, GidMappings: gids,
			Ptrace:    true,
			Pdeathsig: syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", process.Pid))
	kerr := process.Kill()
	for { // it is told as stopped first
		state, werr := process.Wait()
		if werr != nil {
			kerr = errors.Join(kerr, werr)
			break
		}
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || !status.Stopped() {
			break
		}
	}
	if err == nil && kerr != nil {
		userns.Close()
		err = kerr
	}
	return userns, err
}

// IDMapMount makes the detached mount fd, which was never attached, show the owners of files as userns maps them: who is N
// in the file system is who is N in userns (mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12). If recursive, so do those below
// it. EINVAL where the file system cannot, EPERM without CAP_SYS_ADMIN over the file system.
func IDMapMount(fd int, userns *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return try("mount_setattr", func() error {
		return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
	})
}
