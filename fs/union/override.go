package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// With xattr_permissions, the owner, the mode and the type of a file are in an attribute: see [layer.Override]. The
// upper layer has the attribute that the option names, a lower one that which its root has, if any. All that reads or
// changes owner and mode goes through here; the files themselves are never chowned.

// findOverrides finds out which attribute each lower layer has.
func (fs *FS) findOverrides() error {
	fs.override = fs.options().OverrideStat.Attr()
	if fs.override == "" {
		return nil
	}
	fs.lowerOverrides = make([]layer.Override, len(fs.stack.Lowers))
	for i, l := range fs.stack.Lowers {
		o, err := layer.OverrideOf(l.Root)
		if err != nil {
			return err
		}
		fs.lowerOverrides[i] = o
	}
	return nil
}

// overrideOf is the attribute of a layer; empty if it has none.
func (fs *FS) overrideOf(l *layer.Layer) layer.Override {
	switch {
	case fs.override == "":
		return ""
	case l == fs.stack.Upper:
		return fs.override
	default:
		return fs.lowerOverrides[l.Pos]
	}
}

// stat describes an object of a layer as it is in the union.
func (fs *FS) stat(l *layer.Layer, r layer.Ref, st *unix.Stat_t) error {
	if err := r.Stat(st); err != nil {
		return err
	}
	return fs.overrideOf(l).Apply(r, st)
}

// statUpper is stat for an object of the upper layer.
func (fs *FS) statUpper(r layer.Ref, st *unix.Stat_t) error { return fs.stat(fs.stack.Upper, r, st) }

// chmod changes the mode of an object of the upper layer.
func (fs *FS) chmod(r layer.Ref, mode uint32) error {
	if fs.override == "" {
		return r.Chmod(mode)
	}
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	st.Mode = st.Mode&unix.S_IFMT | mode&0o7777
	return fs.override.Write(r, &st)
}

// chown changes the owner of an object of the upper layer, but for what is -1, and clears what that clears.
func (fs *FS) chown(r layer.Ref, uid, gid uint32) error {
	if fs.override == "" {
		return r.Chown(uid, gid)
	}
	const leave = ^uint32(0)
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	if uid != leave {
		st.Uid = uid
	}
	if gid != leave {
		st.Gid = gid
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		st.Mode &^= unix.S_ISUID
		if st.Mode&unix.S_IXGRP != 0 {
			st.Mode &^= unix.S_ISGID
		}
		if err := fs.dropCapabilities(r); err != nil {
			return err
		}
	}
	return fs.override.Write(r, &st)
}

const capabilityAttr = "security.capability"

// dropCapabilities removes the capabilities of a file where the file system does not know that they are some.
func (fs *FS) dropCapabilities(r layer.Ref) error {
	disk := fs.override.ToDisk(capabilityAttr)
	if disk == capabilityAttr {
		return nil
	}
	if err := r.Removexattr(disk); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP && err != unix.EPERM {
		return err // EPERM: not a regular file
	}
	return nil
}

// born makes a new object, of which make is told the mode: as the caller's, or as the daemon's with the attribute. It
// is made as name in the directory at, which may be a stand-in for its parent.
func (fs *FS) born(c *creation, at *layer.Dir, name string) error {
	return fs.bear(c, at, name, func() layer.Ref { return at.At(name) })
}

// bornUnnamed is born for an object that made refers to once it is made.
func (fs *FS) bornUnnamed(c *creation, made func() layer.Ref) error {
	return fs.bear(c, c.parent.dir.upper.Load(), "", made)
}

func (fs *FS) bear(c *creation, at *layer.Dir, name string, made func() layer.Ref) error {
	if fs.override == "" {
		return fs.as(c.caller, c.umask, func() error { return c.make(at, name, c.mode) })
	}
	var parent unix.Stat_t
	if err := fs.statUpper(c.parent.dir.upper.Load().Self(), &parent); err != nil {
		return err
	}
	st := fs.inherit(&parent, c.caller, c.mode, c.umask)
	st.Rdev = uint64(c.rdev)
	err := sys.As(0, 0, 0, func() error { return c.make(at, name, fs.override.Backing(c.mode)) })
	if err != nil {
		return err
	}
	if err := fs.override.Write(made(), &st); err != nil {
		if name != "" {
			err = errors.Join(err, at.RemoveAll(name))
		}
		return err
	}
	return nil
}

// inherit is what describes a new object in a directory (inode_init_owner).
func (fs *FS) inherit(parent *unix.Stat_t, caller *fuse.InHeader, mode, umask uint32) (st unix.Stat_t) {
	st.Uid, st.Gid = fs.owners.stored(caller.Uid, caller.Gid)
	st.Mode = mode &^ umask
	if mode&unix.S_IFMT == unix.S_IFLNK {
		st.Mode = unix.S_IFLNK | 0o777
	}
	if parent.Mode&unix.S_ISGID != 0 {
		st.Gid = parent.Gid
		if mode&unix.S_IFMT == unix.S_IFDIR {
			st.Mode |= unix.S_ISGID
		}
	}
	return st
}

// overrideStatx is stat for what Statx tells.
func (fs *FS) overrideStatx(n *node, r layer.Ref, stx *unix.Statx_t) error {
	o := fs.overrideOf(fs.layerOf(n))
	if o == "" {
		return nil
	}
	st := unix.Stat_t{Uid: stx.Uid, Gid: stx.Gid, Mode: uint32(stx.Mode), Rdev: unix.Mkdev(stx.Rdev_major, stx.Rdev_minor)}
	if err := o.Apply(r, &st); err != nil {
		return err
	}
	stx.Uid, stx.Gid, stx.Mode = st.Uid, st.Gid, uint16(st.Mode)
	stx.Rdev_major, stx.Rdev_minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return nil
}

// layerOf is the layer of the topmost object of n.
//
// Precondition: n.mu is held, or nobody else knows n yet.
func (fs *FS) layerOf(n *node) *layer.Layer {
	switch {
	case n.upper.Load():
		return fs.stack.Upper
	case n.dir != nil:
		return n.dir.lowers[0].Layer()
	default:
		return n.in.Layer()
	}
}

// xattrToDisk is the name under which the attribute of n that a user calls attr is kept.
//
// Precondition: n.mu is held.
func (fs *FS) xattrToDisk(n *node, attr string) string {
	return fs.overrideOf(fs.layerOf(n)).ToDisk(fs.stack.Xattr.ToDisk(attr))
}

// forbidden reports whether users may not name the attribute: they would forge what this package keeps in it.
func (fs *FS) forbidden(attr string) bool {
	return fs.override != "" && layer.IsOverride(attr)
}
