package union

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// connectionID returns the number by which the kernel knows the FUSE connection of the file system that mountFD is on.
func connectionID(mountFD int) (uint64, error) {
	var stx unix.Statx_t
	// Without syncing, since that would be a request to ourselves.
	if err := unix.Statx(mountFD, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &stx); err != nil {
		return 0, fmt.Errorf("stat the FUSE mount: %w", err)
	}
	return unix.Mkdev(stx.Dev_major, stx.Dev_minor), nil
}

// abort ends a FUSE connection if it still is: reads of the device fail from now on, and users get ENOTCONN. Closing
// the device would not do while threads of ours read it. It goes through a fusectl file system of our own, for there
// may be none in the file tree.
func abort(connection uint64) error {
	ctl, err := mountFusectl()
	if err != nil {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	defer unix.Close(ctl)
	id := strconv.FormatUint(connection, 10)
	fd, err := sys.Openat(ctl, id+"/abort", unix.O_WRONLY, 0)
	if err == unix.ENOENT { // it has ended already
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the abort file of FUSE connection %s: %w", id, err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("1"))
	return err
}

func mountFusectl() (int, error) {
	fsfd, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, err
	}
	return unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
}
