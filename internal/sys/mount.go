package sys

import (
	"golang.org/x/sys/unix"
)

// CloneMount returns a descriptor of a private, detached, read-only copy of the mount that the directory fd is on,
// rooted at that directory: submounts are not in it, and nobody can write through it. EPERM without CAP_SYS_ADMIN
// over the mount namespace; EINVAL where a mount cannot be cloned.
func CloneMount(fd int) (int, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil && err != unix.ENOSYS {
		unix.Close(clone)
		return -1, err
	}
	return clone, nil
}

// MountID returns the id of the mount that fd is on, as in /proc/self/mountinfo.
func MountID(fd int) (uint64, error) {
	var stx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx); err != nil {
		return 0, err
	}
	if stx.Mask&unix.STATX_MNT_ID == 0 {
		return 0, unix.ENOSYS
	}
	return stx.Mnt_id, nil
}
