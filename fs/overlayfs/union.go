package overlayfs

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// maxLayers is OVL_MAX_STACK of fs/overlayfs/params.h: how many lower layers overlayfs takes.
const maxLayers = 500

// union is a stack on its way to the kernel.
type union struct {
	stack  *layer.Stack
	form   form
	lowers []*directory // topmost first
	data   []*directory // data-only
	upper  *directory   // nil in a read-only union
	work   *directory
	clone  int // the detached mount that upper and work are on; -1 if they are where they were
}

// directory is a layer or the work directory on the mount where its path leads. The handles of layer.Stack will not
// do: they are on detached clones, which overlayfs takes only since Linux 6.15 and shows as "/" in mountinfo.
type directory struct {
	what string // "lower layer"
	path string // as the user named it
	fd   int    // O_PATH
	st   unix.Stat_t
}

func openUnion(stack *layer.Stack) (*union, error) {
	u := &union{stack: stack, clone: -1}
	spec := stack.Spec
	for i, path := range spec.Lower {
		d, err := openDirectory("lower layer", path, stack.Lowers[i].Root)
		if err != nil {
			u.close()
			return nil, err
		}
		u.lowers = append(u.lowers, d)
	}
	for i, path := range spec.Data {
		d, err := openDirectory("data-only lower layer", path, stack.Data[i].Root)
		if err != nil {
			u.close()
			return nil, err
		}
		u.data = append(u.data, d)
	}
	if stack.Upper == nil {
		return u, nil
	}
	var err error
	if u.upper, err = openDirectory("upper layer", spec.Upper, stack.Upper.Root); err == nil {
		u.work, err = openDirectory("work directory", spec.Work, nil)
	}
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// openDirectory opens path, which must still be the directory same, if that is given.
func openDirectory(what, path string, same *layer.Dir) (*directory, error) {
	fd, err := sys.Openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s %q: %w", what, path, err)
	}
	d := &directory{what: what, path: path, fd: fd}
	err = unix.Fstat(fd, &d.st)
	if err == nil && same != nil {
		var st unix.Stat_t
		if err = same.Self().Stat(&st); err == nil && (st.Dev != d.st.Dev || st.Ino != d.st.Ino) {
			err = fmt.Errorf("another directory was put in its place: try again")
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s %q: %w", what, path, err)
	}
	return d, nil
}

func (u *union) close() {
	for _, d := range u.all() {
		unix.Close(d.fd)
	}
	if u.clone >= 0 {
		unix.Close(u.clone)
	}
}

// all returns every directory of the union.
func (u *union) all() []*directory {
	list := slices.Concat(u.lowers, u.data)
	for _, d := range []*directory{u.upper, u.work} {
		if d != nil {
			list = append(list, d)
		}
	}
	return list
}

func (d *directory) is(other *directory) bool {
	return d.st.Dev == other.st.Dev && d.st.Ino == other.st.Ino
}

func (d *directory) String() string { return fmt.Sprintf("%s %q", d.what, d.path) }

// checkInside refuses an upper layer or work directory inside a lower layer, which the kernel mounts; see the package
// comment.
func (u *union) checkInside() error {
	if u.upper == nil {
		return nil
	}
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	for _, d := range []*directory{u.upper, u.work} {
		if outer := d.inside(slices.Concat(u.lowers, u.data), mounts); outer != nil {
			return cannot("%s is inside %s, which overlayfs cannot show: choose one outside, or on another file system, or use --backend fuse", d, outer)
		}
	}
	return nil
}

// inside returns one of the other directories that d is inside of, or the same as; nil if there is none.
func (d *directory) inside(others []*directory, mounts []mountinfo.Entry) *directory {
	path := d.realPath()
	for _, o := range others {
		if _, is := mountinfo.Inside(mounts, path, o.realPath()); is {
			return o
		}
	}
	return nil
}

// realPath is the directory's path as the kernel sees it, without symbolic links.
func (d *directory) realPath() string {
	path, err := os.Readlink(sys.ProcPath(d.fd, ""))
	if err != nil {
		return d.path
	}
	return path
}

// checkWritable refuses a mount that the kernel made read-only of itself, because it could not use the work directory
// ("failed to create directory ...; mounting read-only" in its log).
func (u *union) checkWritable(fd int) error {
	if u.upper == nil || u.stack.Spec.Options.ReadOnly {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("statfs of the new overlay: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return cannot("overlayfs cannot write in %s and would serve a read-only union: check its owner, mode and attributes (lsattr), or choose another", u.work)
	}
	return nil
}
