package merged

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Attributes returns the extended attributes of an object of a layer, ACLs among them, under the names that users of the
// union know them by.
func (u *Union) Attributes(r layer.Ref) (map[string][]byte, error) {
	names, err := r.Listxattr()
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	shown := map[string][]byte{}
	for _, disk := range names {
		if u.xattr.Private(disk) {
			continue
		}
		value, err := r.Getxattr(disk)
		if err == unix.ENODATA { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		shown[u.xattr.FromDisk(disk)] = value
	}
	return shown, nil
}
