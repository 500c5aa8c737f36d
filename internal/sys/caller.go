package sys

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// As runs f with uid and gid as the thread's file system ids and umask as its umask, so that what f creates is
// born with the owner, the mode and the default ACL that the caller of a request would have got. It is how
// overlayfs creates (ovl_override_creator_creds). The capabilities of the daemon stay: whether the caller may
// create was decided before, by the kernel, on the union's own permissions.
func As(uid, gid, umask uint32, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// The umask belongs to the fs_struct that the threads of a process share; a thread that was here before has
	// its own already, and this does nothing then. It keeps a working directory of its own from here on, which
	// is harmless: nothing in this process changes it.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	old := unix.Umask(int(umask))
	defer unix.Umask(old)

	if uid == 0 && gid == 0 {
		return f()
	}
	if err := setfsids(uid, gid); err != nil {
		return err
	}
	err := f()
	if back := setfsids(0, 0); back != nil {
		// The thread wears the caller's ids and cannot be made clean: it must not serve anybody else.
		panic("setfsuid back to 0: " + back.Error())
	}
	return err
}

// setfsids sets the file system ids of the calling thread, and restores the capabilities that leaving fsuid 0
// takes from the effective set (capabilities(7), "Effect of user ID changes on capabilities").
func setfsids(uid, gid uint32) error {
	// setfsuid(2) cannot fail visibly: asking again with an impossible id tells what is set.
	unix.SetfsgidRetGid(int(gid))
	if now, _ := unix.SetfsgidRetGid(-1); uint32(now) != gid {
		return unix.EPERM
	}
	unix.SetfsuidRetUid(int(uid))
	if now, _ := unix.SetfsuidRetUid(-1); uint32(now) != uid {
		return unix.EPERM
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	if data[0].Effective == data[0].Permitted && data[1].Effective == data[1].Permitted {
		return nil
	}
	data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	return unix.Capset(&hdr, &data[0])
}
