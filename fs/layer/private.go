package layer

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// makePrivate moves the upper layer and the work directory to a clone of their mount, one for both, since a rename from
// work to upper must stay on one mount. So what becomes of their own mount is no matter to the union, nor is the union
// to who unmounts it (clone_private_mount in fs/overlayfs/super.c). They stay where they are if it cannot be cloned.
//
// The clone sets times of last access by the options of the union, not by those of the file system (ovl_get_upper); none if
// the union is mounted read-only.
func makePrivate(upper, work *Dir, opt Options) {
	upperFD, workFD, err := CloneTogether(upper.fd, work.fd, func(clone int) error {
		const all = unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
		attr := opt.AtimeAttr()
		if opt.ReadOnly {
			attr = unix.MOUNT_ATTR_NOATIME
		}
		_ = sys.SetMountAttr(clone, attr, all) // EPERM in a user namespace, where the flags are locked
		return nil
	})
	if err != nil {
		return
	}
	_ = unix.Dup3(upperFD, upper.fd, unix.O_CLOEXEC) // nobody else has them yet
	_ = unix.Dup3(workFD, work.fd, unix.O_CLOEXEC)
	unix.Close(upperFD)
	unix.Close(workFD)
}

// CloneTogether opens upper and work, directories on one mount, on a detached clone of that, as O_PATH. It calls change
// with the clone before.
func CloneTogether(upper, work int, change func(clone int) error) (upperFD, workFD int, err error) {
	root, upperPath, workPath, err := commonRoot(upper, work)
	if err != nil {
		return -1, -1, err
	}
	defer unix.Close(root)
	clone, err := sys.CloneMount(root, false)
	if err != nil {
		return -1, -1, err
	}
	defer unix.Close(clone)
	if err := change(clone); err != nil {
		return -1, -1, err
	}
	upperFD, err = openOnClone(clone, upperPath, RefFD(upper))
	if err != nil {
		return -1, -1, err
	}
	workFD, err = openOnClone(clone, workPath, RefFD(work))
	if err != nil {
		unix.Close(upperFD)
		return -1, -1, err
	}
	return upperFD, workFD, nil
}

// AtimeAttr is what the options say of times of last access, as flags of mount_setattr(2).
func (o Options) AtimeAttr() uint64 {
	var attr uint64
	switch o.Atime {
	case AtimeNever:
		attr = unix.MOUNT_ATTR_NOATIME
	case AtimeAlways:
		attr = unix.MOUNT_ATTR_STRICTATIME
	}
	if o.NoDirTime {
		attr |= unix.MOUNT_ATTR_NODIRATIME
	}
	return attr
}

// commonRoot opens the nearest directory above both a and b, directories on one mount, and tells their paths from there.
func commonRoot(a, b int) (fd int, pathA, pathB string, err error) {
	namesA, err := pathNames(a)
	if err != nil {
		return -1, "", "", err
	}
	namesB, err := pathNames(b)
	if err != nil {
		return -1, "", "", err
	}
	n := 0
	for n < len(namesA) && n < len(namesB) && namesA[n] == namesB[n] {
		n++
	}
	up := "." + strings.Repeat("/..", len(namesA)-n)
	fd, err = sys.Openat(a, up, unix.O_PATH|unix.O_DIRECTORY, 0)
	return fd, path.Join(namesA[n:]...), path.Join(namesB[n:]...), err
}

// pathNames returns the names on the path of the directory fd, as this process sees it.
func pathNames(fd int) ([]string, error) {
	var buf [unix.PathMax]byte
	n, err := sys.Readlinkat(unix.AT_FDCWD, sys.ProcPath(fd, ""), buf[:])
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.Trim(string(buf[:n]), "/"), "/"), nil
}

// openOnClone opens the directory at path below clone, which must be same: paths may have changed meanwhile.
func openOnClone(clone int, path string, same Ref) (int, error) {
	fd, err := sys.Openat2(clone, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return -1, err
	}
	is, err := sameDir(RefFD(fd), same)
	if err == nil && !is {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
