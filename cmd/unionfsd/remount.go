package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// remount changes the flags of a mounted union: mount -o remount,ro. What else is among the options stays as it was
// mounted, as mount(8) gives a helper all that fstab(5) has of the file system.
func (a *app) remount(target string, opt layer.Options) error {
	root, err := a.state()
	if err != nil {
		return err
	}
	u, ok, err := findUnion(root, target)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("no union is mounted there; mount it first, without remount")
	}
	mounted, _, err := layer.ParseOptions(string(u.Spec))
	switch {
	case err != nil || opt.ReadOnly:
	case mounted.Upper == "":
		return fmt.Errorf("the union has no upper layer, and cannot be written; unmount it and mount it with upperdir= and workdir=: unionfsd umount %s", shell(target))
	case mounted.Options.ReadOnly:
		return fmt.Errorf("the union was mounted with ro; unmount it and mount it without: unionfsd umount %s", shell(target))
	}
	var flags uintptr = unix.MS_REMOUNT
	for _, f := range []struct {
		on   bool
		flag uintptr
	}{{opt.ReadOnly, unix.MS_RDONLY}, {opt.NoSuid, unix.MS_NOSUID}, {opt.NoDev, unix.MS_NODEV}, {opt.NoExec, unix.MS_NOEXEC}} {
		if f.on {
			flags |= f.flag
		}
	}
	switch err := unix.Mount("", string(u.Mountpoint), "", flags, ""); err {
	case nil:
		return nil
	case unix.EBUSY:
		return errors.New("files are open for writing there; close them first (fuser -m tells whose they are)")
	default:
		return fmt.Errorf("remount: %w", err)
	}
}
