package union

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// In a union with aufs_marks=on, entries that begin with ".wh." are marks: users neither see nor make them.

// hiddenByAUFS reports whether an AUFS mark in the directory hides what the layers below have of the name.
func (fs *FS) hiddenByAUFS(dir *layer.Dir, name string) (bool, error) {
	if !fs.options().AUFSMarks {
		return false, nil
	}
	return whiteout.HiddenByAUFS(dir, name)
}

// opacity is what the directory says of those below it, in whatever form.
func (fs *FS) opacity(dir *layer.Dir) (whiteout.Opacity, error) {
	opacity, err := whiteout.OpacityOf(dir.Self(), fs.stack.Xattr)
	return fs.withAUFSMark(dir, opacity, err)
}

// rootOpacity is opacity for the root of a layer.
func (fs *FS) rootOpacity(root *layer.Dir) (whiteout.Opacity, error) {
	opacity, err := whiteout.OpacityOf(root.Self(), fs.stack.Xattr)
	return fs.withAUFSMark(root, opacity.OfRoot(), err)
}

// withAUFSMark is opacity, or Opaque if there is an AUFS mark.
func (fs *FS) withAUFSMark(dir *layer.Dir, opacity whiteout.Opacity, err error) (whiteout.Opacity, error) {
	if err != nil || opacity == whiteout.Opaque || !fs.options().AUFSMarks {
		return opacity, err
	}
	opaque, err := whiteout.OpaqueByAUFS(dir)
	if opaque {
		opacity = whiteout.Opaque
	}
	return opacity, err
}

// mayMake returns EINVAL, as fuse-overlayfs does, for a name that would be a mark.
func (fs *FS) mayMake(name string) error {
	if fs.options().AUFSMarks && whiteout.IsAUFS(name) {
		return unix.EINVAL
	}
	return nil
}
