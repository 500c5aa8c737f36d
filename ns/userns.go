package ns

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A user namespace of the container's own is made along with the others, when init is cloned; its maps are written by the
// supervisor before init is executed. Whatever owns the files of the root must be mapped there, or nobody in the container
// may change them: the kernel gives root of a user namespace no privilege over ids that it does not know
// (privileged_wrt_inode_uidgid).

// apply makes a new process root of the namespace.
func (u *UserNamespace) apply(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings, attr.GidMappings = u.UIDs, u.GIDs
	// It drops groups that the caller has, and programs of the container may have others, unless the namespace of the
	// caller has forbidden that for good.
	attr.GidMappingsEnableSetgroups = !mustKeepGroups()
	attr.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), NoSetGroups: mustKeepGroups()}
	if u.UID != 0 {
		// Who is not root loses all capabilities when it is executed, but those that are ambient.
		attr.AmbientCaps = initCaps
	}
}

// initCaps is what init does its work with: mounts, devices, users, the loopback interface, limits, signals.
var initCaps = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SYS_ADMIN,
	unix.CAP_SYS_RESOURCE}

// own gives the pipes among files to pid 1 of the container: it could not pass them on to a user there, and nobody could
// open /dev/stdout. Other files stay whose they are.
func (u *UserNamespace) own(files []*os.File) {
	if u == nil {
		return
	}
	uid, gid := u.Outside()
	for _, f := range files {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(int(f.Fd()), uid, gid) // one of somebody else's can be written to all the same
		}
	}
}

// Outside is who pid 1 of the container is for the caller of [Start].
func (u *UserNamespace) Outside() (uid, gid int) {
	return outside(u.UIDs, u.UID), outside(u.GIDs, u.GID)
}

// outside is who id is outside of a namespace; -1, which chown(2) takes for nobody, if it is not mapped.
func outside(m []syscall.SysProcIDMap, id int) int {
	for _, r := range m {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + id - r.ContainerID
		}
	}
	return -1
}

// check finds what is wrong with the maps.
func (u *UserNamespace) check() error {
	if u == nil {
		return nil
	}
	if uid, gid := u.Outside(); uid < 0 || gid < 0 {
		return bad(fmt.Errorf("user %d:%d of pid 1 is not mapped", u.UID, u.GID), "map it")
	}
	for _, r := range append(append([]syscall.SysProcIDMap{}, u.UIDs...), u.GIDs...) {
		if r.ContainerID < 0 || r.HostID < 0 || r.Size <= 0 {
			return bad(errors.New("a range of ids is empty or begins below 0"), "map ids from 0 on")
		}
	}
	return nil
}
