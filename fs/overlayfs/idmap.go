package overlayfs

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// mapIDs puts the layers of a union whose ids are mapped on id-mapped mounts (overlayfs takes them since Linux 5.19).
// Upper and work must stay on one mount.
func (u *union) mapIDs() error {
	owners := u.stack.Spec.Options.FUSE.Owners
	if !owners.Changed() {
		return nil
	}
	if u.form != byFD {
		return cannot("this kernel's overlayfs does not take layers on detached mounts, as it does since Linux 6.15: do without id maps, or use --backend fuse")
	}
	userns, err := sys.NewUserNamespace(namespaceMap(owners.UID), namespaceMap(owners.GID))
	if err != nil {
		return fmt.Errorf("map the ids of the layers: %w", err)
	}
	defer userns.Close()
	for _, d := range slices.Concat(u.lowers, u.data) {
		clone, err := sys.CloneMount(d.fd, true)
		if err == nil {
			err = sys.IDMapMount(clone, userns, false)
		}
		if err != nil {
			unix.Close(clone)
			return d.unmappable(err)
		}
		d.put(clone)
	}
	if u.upper == nil {
		return nil
	}
	upper, work, err := layer.CloneTogether(u.upper.fd, u.work.fd, func(clone int) error {
		if err := sys.IDMapMount(clone, userns, false); err != nil {
			return err
		}
		// Overlayfs takes directories of a detached mount only as long as that has its descriptor (dissolve_on_fput).
		u.clone, err = sys.Dup(clone)
		return err
	})
	if err != nil {
		return u.upper.unmappable(err)
	}
	u.upper.put(upper)
	u.work.put(work)
	return nil
}

// create makes the union. What it makes by itself, such as whiteouts, it makes as who made it, who must be somebody in the
// layers: so that is the owner of what is root's there.
func (u *union) create(fsfd int) error {
	owners := u.stack.Spec.Options.FUSE.Owners
	if !owners.Changed() {
		return unix.FsconfigCreate(fsfd)
	}
	uid, _ := owners.UID.Shown(0)
	gid, _ := owners.GID.Shown(0)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread has a working directory of its own from here on, so it ends
		done <- sys.As(uid, gid, 0o022, func() error { return unix.FsconfigCreate(fsfd) })
	}()
	return <-done
}

// namespaceMap is the map of a user namespace whose ids are those on disk.
func namespaceMap(m layer.IDMap) (list []syscall.SysProcIDMap) {
	for _, r := range m {
		list = append(list, syscall.SysProcIDMap{ContainerID: int(r.Disk), HostID: int(r.Shown), Size: int(r.Count)})
	}
	if len(m) == 0 {
		const all = 1<<32 - 1
		list = append(list, syscall.SysProcIDMap{Size: all})
	}
	return list
}

// put replaces the descriptor of the directory by that of the same one on another mount.
func (d *directory) put(fd int) {
	unix.Close(d.fd)
	d.fd = fd
}

func (d *directory) unmappable(err error) error {
	why := error(nil)
	switch {
	case errors.Is(err, unix.EINVAL):
		why = cannot("%s is on a file system (%s) whose mounts this kernel cannot map ids of: choose another, or use --backend fuse", d, d.fsType())
	case errors.Is(err, unix.EPERM):
		why = cannot("mapping the ids of %s takes CAP_SYS_ADMIN over its file system: run as root, or use --backend fuse", d)
	}
	return cmp.Or(why, fmt.Errorf("map the ids of %s: %w", d, err))
}
