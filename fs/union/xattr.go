package union

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// GetXAttr implements fuse.RawFileSystem. The union's own marks are not to be seen: a user who asks for one gets the
// user's attribute of that name, which is escaped on disk.
func (fs *FS) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (size uint32, status fuse.Status) {
	n := fs.node(header.NodeId)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	if isACL(attr) && !fs.acls() {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	if fs.forbidden(attr) {
		return 0, fuse.ENOATTR
	}
	err := n.use(func(r layer.Ref) error {
		disk := fs.xattrToDisk(n, attr)
		if attr == capabilityAttr && len(fs.owners.UID) > 0 {
			n, err := fs.owners.getCaps(r, disk, dest)
			size = uint32(n)
			return err
		}
		got, err := r.GetxattrInto(disk, dest)
		if err == nil && isACL(attr) {
			fs.owners.showACL(dest[:min(got, len(dest))])
		}
		if err == unix.ERANGE { // go-fuse wants the size with the error
			got, _ = r.GetxattrInto(disk, nil)
		}
		size = uint32(got)
		return err
	})
	return size, fs.nodeStatus("getxattr", n, err)
}

// ListXAttr implements fuse.RawFileSystem.
func (fs *FS) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := fs.node(header.NodeId)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	var names []string
	var override layer.Override
	err := n.use(func(r layer.Ref) (err error) {
		override = fs.overrideOf(fs.layerOf(n))
		names, err = r.Listxattr()
		return err
	})
	if err != nil {
		return 0, fs.nodeStatus("listxattr", n, err)
	}
	var list []byte
	for _, disk := range names {
		if fs.stack.Xattr.Private(disk) || !mayList(header, disk) || isACL(disk) && !fs.acls() {
			continue
		}
		name := override.FromDisk(fs.stack.Xattr.FromDisk(disk))
		if fs.forbidden(name) {
			continue
		}
		list = append(append(list, name...), 0)
	}
	if len(list) > len(dest) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

// mayList reports whether the caller is shown an attribute in a list: trusted.* are for who administers the system
// (ovl_can_list). The kernel checks the other accesses itself.
func mayList(header *fuse.InHeader, name string) bool {
	return !strings.HasPrefix(name, "trusted.") || capable(header, unix.CAP_SYS_ADMIN)
}

// SetXAttr implements fuse.RawFileSystem.
func (fs *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if isACL(attr) {
		if !fs.acls() {
			return fuse.Status(unix.EOPNOTSUPP)
		}
		fs.owners.storeACL(data)
	}
	if attr == capabilityAttr {
		data = fs.owners.storeCaps(data)
	}
	if fs.forbidden(attr) {
		return fuse.EPERM
	}
	disk := fs.override.ToDisk(fs.stack.Xattr.ToDisk(attr)) // it will be of the upper layer
	if len(disk) > unix.NAME_MAX {                          // XATTR_NAME_MAX is the same; the escape made it too long
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if err := fs.unprotected(n, cow.Immutable|cow.AppendOnly); err != nil {
		return fs.nodeStatus("setxattr", n, err)
	}
	if err := fs.ensureUpper(n, copyUpFor{xattr: true, caller: by(&in.InHeader, cancel)}); err != nil {
		return fs.nodeStatus("setxattr", n, err)
	}
	err := n.use(func(r layer.Ref) error {
		if err := r.Setxattr(disk, data, int(in.Flags)); err != nil {
			return err
		}
		if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
			return fs.clearSetgid(r)
		}
		return nil
	})
	return fs.nodeStatus("setxattr", n, err)
}

func (fs *FS) clearSetgid(r layer.Ref) error {
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	return fs.chmod(r, st.Mode&0o7777&^unix.S_ISGID)
}

// RemoveXAttr implements fuse.RawFileSystem. What is not there is not worth a copy-up (ovl_xattr_set).
func (fs *FS) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	n := fs.node(header.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if isACL(attr) && !fs.acls() {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if fs.forbidden(attr) {
		return fuse.EPERM
	}
	if err := fs.unprotected(n, cow.Immutable|cow.AppendOnly); err != nil {
		return fs.nodeStatus("removexattr", n, err)
	}
	if !n.upper.Load() {
		err := n.use(func(r layer.Ref) error {
			_, err := r.GetxattrInto(fs.xattrToDisk(n, attr), nil)
			return err
		})
		if err != nil {
			return fs.nodeStatus("removexattr", n, err)
		}
	}
	if err := fs.ensureUpper(n, copyUpFor{xattr: true, caller: by(header, cancel)}); err != nil {
		return fs.nodeStatus("removexattr", n, err)
	}
	err := n.use(func(r layer.Ref) error { return r.Removexattr(fs.xattrToDisk(n, attr)) })
	return fs.nodeStatus("removexattr", n, err)
}
