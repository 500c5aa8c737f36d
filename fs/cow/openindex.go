package cow

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// OpenIndex opens the index of a stack. Like ovl_get_indexdir: it makes sure that upper layer, work directory and topmost lower layer belong together, since
// the index of others would show wrong files. The first mount writes that down: the origin of the upper root is the
// root of the topmost lower layer, and overlay.upper of the index is the upper root.
func OpenIndex(stack *layer.Stack, origins *Origins) (*Index, error) {
	if err := origins.complete(stack); err != nil {
		return nil, err
	}
	x := &Index{origins: origins, xattr: stack.Xattr}
	upper, lower, spec := stack.Upper, stack.Lowers[0], stack.Spec
	if err := x.associate(upper, lower); err != nil {
		return nil, fmt.Errorf("upper layer %q was used with index=on, and another topmost lower layer than %q: mount it with that one, or with index=off (%w)", spec.Upper, lower.Path, err)
	}
	var err error
	if x.dir, err = stack.Work.OpenIndex(); err != nil {
		return nil, fmt.Errorf("open the index in work directory %q: %w", spec.Work, err)
	}
	if err := x.claim(upper); err != nil {
		return nil, fmt.Errorf("the index in work directory %q is of another upper layer than %q: choose another work directory, or mount with index=off (%w)", spec.Work, spec.Upper, err)
	}
	return x, nil
}

// ReadIndex opens the index of a stack to look into it; nil if there is none. Nothing is written, and whose index it is was
// checked by who mounted the union. Close it after use.
func ReadIndex(stack *layer.Stack, origins *Origins) (*Index, error) {
	dir, err := stack.IndexDir()
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the index in work directory %q: %w", stack.Spec.Work, err)
	}
	return &Index{dir: dir, origins: origins, xattr: stack.Xattr}, nil
}

// Close releases what ReadIndex took.
func (x *Index) Close() { x.dir.Close() }

// complete reports whether all objects of all lower layers can have an origin, and be found by it. The kernel mounts
// without the index where they cannot (ovl_lower_uuid_ok); who asks for it here is told.
func (o *Origins) complete(stack *layer.Stack) error {
	known := map[[16]byte]bool{}
	for _, l := range o.lowers {
		if known[l.uuid] {
			return cannotIndex("two lower layers are on file systems with the same UUID")
		}
		known[l.uuid] = true
	}
	for _, l := range stack.Lowers {
		id, err := o.identify(l.Root.Self(), l.Dev)
		if err != nil {
			return cannotIndex("lower layer %q is on a file system without file handles or UUID, or the kernel is older than 6.9", l.Path)
		}
		if _, err := o.look(id); err != nil {
			return cannotIndex("files cannot be opened by their handles, which takes root in the initial user namespace")
		}
	}
	return nil
}

func cannotIndex(format string, args ...any) error {
	return fmt.Errorf("index=on cannot be had: %s; drop it, or use --backend kernel (%w)", fmt.Sprintf(format, args...), errors.ErrUnsupported)
}

// associate makes the root of the topmost lower layer the origin of the upper root. ESTALE if that has another one.
func (x *Index) associate(upper, lower *layer.Layer) error {
	id, err := x.origins.identify(lower.Root.Self(), lower.Dev)
	if err != nil {
		return err
	}
	return verifyOrSet(upper.Root.Self(), x.xattr.Origin, id)
}

// claim makes the index that of the upper layer. ESTALE if it is that of another one.
func (x *Index) claim(upper *layer.Layer) error {
	fd, err := upper.Root.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	uuid, err := sys.FSUUID(fd)
	if err != nil {
		return err
	}
	id, err := identify(upper.Root.Self(), uuid, fbUpper)
	if err != nil {
		return err
	}
	self := x.dir.Self()
	if err := verify(self, x.xattr.Origin, id); err != nil && err != unix.ENODATA { // where old kernels had it
		return err
	}
	return verifyOrSet(self, x.xattr.Upper, id)
}

// verifyOrSet is ovl_verify_set_fh.
func verifyOrSet(obj layer.Ref, attr string, id []byte) error {
	err := verify(obj, attr, id)
	if err == unix.ENODATA {
		return obj.Setxattr(attr, id, 0)
	}
	return err
}

// verify returns nil if the attribute says id, ENODATA if it says nothing, and ESTALE if it says something else.
func verify(obj layer.Ref, attr string, id []byte) error {
	value, err := obj.Getxattr(attr)
	switch _, _, _, valid := decode(value); {
	case err == nil && bytes.Equal(value, id):
		return nil
	case err == nil && valid:
		return unix.ESTALE
	case err == nil, err == unix.EOPNOTSUPP:
		return unix.ENODATA
	}
	return err
}

// Clean removes what was being made when a mount ended, and copies that have no name in the union any more. Like
// ovl_indexdir_cleanup without nfs_export.
func (x *Index) Clean() error {
	names, err := x.dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		stale := name[0] == '#' // the kernel stages here
		if !stale {
			if stale, err = x.stale(name); err != nil {
				return fmt.Errorf("what is %q? (%w)", name, err)
			}
		}
		if stale {
			if err := x.dir.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// stale reports whether an entry is of no use: its lower file is gone, or it has lost its last name. An error is an
// entry that this version does not understand. Like ovl_verify_index.
func (x *Index) stale(name string) (bool, error) {
	id, err := hex.DecodeString(name)
	if err != nil {
		return false, err
	}
	if _, _, _, ok := decode(id); !ok {
		return false, unix.EINVAL
	}
	entry := x.At(name)
	var st unix.Stat_t
	if err := entry.Stat(&st); err != nil {
		return false, err
	}
	if whiteout.Is(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil // made with nfs_export=on
	}
	switch err := verify(entry, x.xattr.Origin, id); {
	case err == unix.ESTALE:
		return true, nil
	case err != nil || st.Nlink > 1:
		return false, err
	}
	lower, err := x.origins.look(id)
	switch {
	case err == unix.ESTALE, err == nil && (lower.Stat.Mode^st.Mode)&unix.S_IFMT != 0:
		return true, nil
	case err != nil:
		return false, err
	}
	_, named := x.links(entry, uint64(lower.Stat.Nlink), uint64(st.Nlink))
	return !named, nil
}
