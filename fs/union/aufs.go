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
	return whiteout.OpacityOfDir(dir, fs.stack.Xattr, fs.options().AUFSMarks)
}

// mayMake returns EINVAL, as fuse-overlayfs does, for a name that would be a mark.
func (fs *FS) mayMake(name string) error {
	if fs.options().AUFSMarks && whiteout.IsAUFS(name) {
		return unix.EINVAL
	}
	return nil
}
