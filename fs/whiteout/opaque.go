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

// OfRoot is what is left of the opacity of the root of a layer: overlayfs merges the roots whatever they say (ovl_get_root).
func (o Opacity) OfRoot() Opacity {
	if o == Opaque {
		return Transparent
	}
	return o
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
