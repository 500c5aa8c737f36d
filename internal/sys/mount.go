package sys

import (
	"golang.org/x/sys/unix"
)

// CloneMount returns a descriptor of a private, detached copy of the mount that the directory fd is on, rooted at that
// directory: submounts are not in it. If readOnly, nobody can write through it, nor does reading leave a trace. EPERM
// without CAP_SYS_ADMIN over the mount namespace; EINVAL where a mount cannot be cloned.
func CloneMount(fd int, readOnly bool) (int, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil || !readOnly {
		return clone, err
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

// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h, since Linux 6.5.
const moveMountBeneath = 0x200

// MoveBeneath puts the detached mount fd under the mount that the descriptor top is the root of, so that it is there
// when that is unmounted. EINVAL where top is covered, where it is the root of the mount namespace, and before Linux
// 6.5: see CanMoveBeneath.
func MoveBeneath(fd, top int) error {
	return try("move_mount", func() error {
		return unix.MoveMount(fd, "", top, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH|moveMountBeneath)
	})
}

// SetMountAttr sets and clears the flags of the detached mount fd, MOUNT_ATTR_* of mount_setattr(2).
func SetMountAttr(fd int, set, clear uint64) error {
	return try("mount_setattr", func() error {
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
	})
}

// Syncfs writes the file system that fd is on to disk.
func Syncfs(fd int) error {
	return try("syncfs", func() error { return unix.Syncfs(fd) })
}

// CanMoveBeneath reports whether this kernel has what MoveBeneath needs. It changes nothing: EPERM without the
// privilege to mount, EINVAL on kernels that do not know the flag.
func CanMoveBeneath() error {
	if err := MoveBeneath(-1, -1); err != unix.EBADF {
		return err
	}
	return nil
}
