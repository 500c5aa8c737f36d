package whiteout

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// AUFSOpaque is the mark of a directory that hides what is below it.
const AUFSOpaque = layer.AUFSPrefix + layer.AUFSPrefix + ".opq"

// IsAUFS reports whether the name is one that users of a union with AUFS's marks do not have.
func IsAUFS(name string) bool { return strings.HasPrefix(name, layer.AUFSPrefix) }

// AUFSHidden returns what an entry of the name mark hides; false if it hides nothing, as marks do that AUFS has for
// itself.
func AUFSHidden(mark string) (name string, ok bool) {
	name, ok = strings.CutPrefix(mark, layer.AUFSPrefix)
	return name, ok && !IsAUFS(name)
}

// HiddenByAUFS reports whether the directory has a mark for the name. If it has the name, too, that is shown, and hides
// everything below it: the image specification of OCI applies a whiteout before the entries of its layer.
func HiddenByAUFS(dir *layer.Dir, name string) (bool, error) {
	return dir.AUFSName(layer.AUFSPrefix + name)
}

// OpaqueByAUFS reports whether the directory has the mark that it hides what is below it.
func OpaqueByAUFS(dir *layer.Dir) (bool, error) {
	var st unix.Stat_t
	err := dir.Stat(AUFSOpaque, &st)
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// impossible reports whether a file system has no such thing as what it was asked to make, be it that its format has no
// room for it or that it forbids it to everybody here.
func impossible(err error) bool {
	switch err {
	case unix.EPERM, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSYS:
		return true
	}
	return false
}
