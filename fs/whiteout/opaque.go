package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Opacity is what a directory says of the directories below it.
type Opacity int

const (
	Transparent Opacity = iota // it is merged with what is below
	Opaque                     // y: it hides what is below
	Marked                     // x: it is merged, and empty files in it may be whiteouts; see [IsMarked]
)

// OpacityOfDir reads the marks of a directory in both forms: overlayfs's and, if aufs is set, that of AUFS.
func OpacityOfDir(dir *layer.Dir, x layer.XattrNames, aufs bool) (Opacity, error) {
	opacity, err := OpacityOf(dir.Self(), x)
	return withAUFS(dir, opacity, err, aufs)
}

// OpacityOfRoot is OpacityOfDir for the root of a layer: overlayfs merges the roots whatever they say (ovl_get_root).
func OpacityOfRoot(root *layer.Dir, x layer.XattrNames, aufs bool) (Opacity, error) {
	opacity, err := OpacityOf(root.Self(), x)
	if opacity == Opaque {
		opacity = Transparent
	}
	return withAUFS(root, opacity, err, aufs)
}

func withAUFS(dir *layer.Dir, opacity Opacity, err error, aufs bool) (Opacity, error) {
	if err != nil || opacity == Opaque || !aufs {
		return opacity, err
	}
	opaque, err := OpaqueByAUFS(dir)
	if opaque {
		opacity = Opaque
	}
	return opacity, err
}

// OpacityOf reads the mark of a directory.
func OpacityOf(dir layer.Ref, x layer.XattrNames) (Opacity, error) {
	var buf [2]byte
	n, err := dir.GetxattrInto(x.Opaque, buf[:])
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP || err == unix.ERANGE: // a longer value means nothing
		return Transparent, nil
	case err != nil:
		return Transparent, err
	case n == 1 && buf[0] == 'y':
		return Opaque, nil
	case n == 1 && buf[0] == 'x':
		return Marked, nil
	}
	return Transparent, nil
}

// SetOpaque makes a directory hide what is below it. Where aufs is set, and the file system has no attributes, that is
// done with AUFS's mark.
func SetOpaque(dir layer.Ref, x layer.XattrNames, aufs bool) error {
	err := dir.Setxattr(x.Opaque, []byte("y"), 0)
	if !aufs || !impossible(err) {
		return err
	}
	fd, err := dir.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mark, err := sys.Openat(fd, AUFSOpaque, unix.O_WRONLY|unix.O_CREAT, 0o444)
	if err != nil {
		return err
	}
	return unix.Close(mark)
}
