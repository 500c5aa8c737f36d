package union

import (
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// A file may be protected: it is immutable (chattr +i), or it only grows (chattr +a). In the upper layer that is noted in
// overlay.protattr, since the union could not work on a file that the file system protects: a copy could not be linked to
// its name, a directory get no copies (ovl_set_protattr). And the kernel's FUSE client does not know of it. So it is the
// operations that keep to it, here, as the VFS does for an inode with S_IMMUTABLE or S_APPEND.

// protection tells how n is protected.
func (fs *FS) protection(n *node) (cow.Protection, error) {
	if n.upper.Load() {
		return cow.Protection(n.protected.Load()), nil
	}
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return 0, nil
	}
	var stx unix.Statx_t
	err := n.use(func(r layer.Ref) error { return r.Statx(unix.STATX_TYPE, &stx) })
	return cow.ProtectionOf(&stx), err
}

// unprotected returns EPERM if n is protected in one of the given ways.
func (fs *FS) unprotected(n *node, ways cow.Protection) error {
	is, err := fs.protection(n)
	if err == nil && is&ways != 0 {
		err = unix.EPERM
	}
	return err
}

// entryUnprotected returns EPERM if e, the entry name of parent, is protected.
//
// Precondition: parent.dir.entriesMu is held.
func (fs *FS) entryUnprotected(parent *node, name string, e *entry) error {
	n := fs.peek(parent, name, e)
	if n == nil { // which the kernel has looked up, as a rule
		n = &node{kind: e.st.Mode & unix.S_IFMT, pin: -1, parent: parent, name: name, in: e.dir}
		if e.where == inUpper {
			n.upper.Store(true)
			if err := fs.loadProtection(n); err != nil {
				return err
			}
		}
	}
	return fs.unprotected(n, cow.Immutable|cow.AppendOnly)
}

// loadProtection notes how a new node of the upper layer is protected (ovl_check_protattr).
//
// Precondition: nobody else knows n yet.
func (fs *FS) loadProtection(n *node) error {
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return nil
	}
	is, err := cow.ReadProtection(n.refLocked(), fs.stack.Xattr)
	n.protected.Store(uint32(is))
	return err
}

// maySetAttr is may_setattr, and what the VFS looks at before it truncates.
func (fs *FS) maySetAttr(n *node, in *fuse.SetAttrIn) error {
	const (
		touch    = fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW
		anything = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
		times    = fuse.FATTR_ATIME | fuse.FATTR_MTIME
	)
	if in.Valid&fuse.FATTR_SIZE != 0 {
		ways := cow.Immutable | cow.AppendOnly
		if fh, ok := in.GetFh(); ok {
			if f := fs.handles.file(fh); f != nil && f.accmode != unix.O_RDONLY { // it was open before
				ways = cow.AppendOnly
			}
		}
		if err := fs.unprotected(n, ways); err != nil {
			return err
		}
	}
	switch {
	case in.Valid&anything != 0, in.Valid&times != 0 && in.Valid&touch != touch:
		return fs.unprotected(n, cow.Immutable|cow.AppendOnly)
	case in.Valid&times != 0:
		return fs.unprotected(n, cow.Immutable)
	}
	return nil
}

// mayOpen is what may_open and inode_permission say of a file that is opened with these flags to be changed.
func (fs *FS) mayOpen(n *node, flags uint32) error {
	ways := cow.Immutable
	if flags&unix.O_APPEND == 0 || flags&unix.O_TRUNC != 0 {
		ways |= cow.AppendOnly
	}
	return fs.unprotected(n, ways)
}

// protect does what the flags in arg, the argument of the ioctl cmd, say of protection, and takes them away: the rest is for
// the upper file itself.
func (fs *FS) protect(n *node, cmd uint32, arg []byte) error {
	flags := binary.NativeEndian.Uint32(arg)
	immutable, appendOnly := flagsOf(cmd)
	var is cow.Protection
	if flags&immutable != 0 {
		is |= cow.Immutable
	}
	if flags&appendOnly != 0 {
		is |= cow.AppendOnly
	}
	binary.NativeEndian.PutUint32(arg, flags&^(immutable|appendOnly))
	if is == 0 && n.protected.Load() == 0 {
		return nil
	}
	err := n.use(func(r layer.Ref) error { return cow.WriteProtection(r, fs.stack.Xattr, is) })
	if err == nil {
		n.protected.Store(uint32(is))
	}
	return err
}

// showProtection adds to what the ioctl cmd has answered in arg how n is protected.
func (fs *FS) showProtection(n *node, cmd uint32, arg []byte) {
	immutable, appendOnly := flagsOf(cmd)
	is := cow.Protection(n.protected.Load())
	flags := binary.NativeEndian.Uint32(arg)
	if is&cow.Immutable != 0 {
		flags |= immutable
	}
	if is&cow.AppendOnly != 0 {
		flags |= appendOnly
	}
	binary.NativeEndian.PutUint32(arg, flags)
}

// flagsOf returns the bits for protection that the argument of an ioctl begins with (linux/fs.h).
func flagsOf(cmd uint32) (immutable, appendOnly uint32) {
	if cmd == fsIocFsGetXattr || cmd == fsIocFsSetXattr {
		return 0x08, 0x10 // FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND
	}
	return 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
}
