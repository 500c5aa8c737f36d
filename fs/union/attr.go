package union

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// inodeNumber is what st_ino shows for a new node: the number of the lower object that it is or was copied from, so
// that it does not change at copy-up nor at the next mount, else the number of the upper object. Like ovl_getattr and
// ovl_map_dev_ino with xino=on.
func (fs *FS) inodeNumber(parent, n *node, ref layer.Ref, st *unix.Stat_t) uint64 {
	if !n.upper.Load() {
		return fs.mapInode(fs.layerOf(n), st.Dev, st.Ino)
	}
	if n.isDir() {
		if len(n.dir.lowers) > 0 {
			lower := n.dir.lowers[0]
			var below unix.Stat_t
			if err := lower.Self().Stat(&below); err == nil {
				return fs.mapInode(lower.Layer(), below.Dev, below.Ino)
			}
		}
		return fs.mapInode(fs.layerOf(n), st.Dev, st.Ino)
	}
	if parent != nil && (parent.dir.impure.Load() || n.index != nil) {
		if lower, ok := fs.origins.Find(ref, fs.stack.Xattr); ok {
			n.origin = true
			// The other names of the lower file are another file, unless the index says that they are not.
			if lower.Stat.Nlink <= 1 || n.index != nil || fs.isIndexed(ref, st) {
				return fs.composeInode(lower.FSID, lower.Stat.Ino)
			}
		}
	}
	return fs.mapInode(fs.layerOf(n), st.Dev, st.Ino)
}

// mapInode makes the inode number of an object of one layer unique among all.
func (fs *FS) mapInode(l *layer.Layer, dev, ino uint64) uint64 {
	if dev != l.Dev { // a subvolume of btrfs, which numbers its inodes anew
		return mix(dev, ino)
	}
	return fs.composeInode(l.FSID, ino)
}

// inodeBits is how many low bits are left to the file systems; the index of the file system is above them.
const inodeBits = 56

func (fs *FS) composeInode(fsid int, ino uint64) uint64 {
	if fs.oneFileSystem {
		return ino
	}
	if ino>>inodeBits != 0 || fsid>>(64-inodeBits) != 0 {
		return mix(uint64(fsid), ino)
	}
	return uint64(fsid)<<inodeBits | ino
}

// mix spreads (a, b) over 64 bits (the finaliser of MurmurHash3), for the rare numbers that cannot be composed.
func mix(a, b uint64) uint64 {
	h := a*0x9e3779b97f4a7c15 ^ b
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// fillAttr tells the attributes of n, whose topmost object st describes.
func (fs *FS) fillAttr(n *node, st *unix.Stat_t, out *fuse.Attr) {
	uid, gid := fs.owners.shown(st.Uid, st.Gid)
	*out = fuse.Attr{
		Ino:       n.ino.Load(),
		Size:      uint64(st.Size),
		Blocks:    uint64(st.Blocks),
		Atime:     uint64(st.Atim.Sec),
		Mtime:     uint64(st.Mtim.Sec),
		Ctime:     uint64(st.Ctim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctimensec: uint32(st.Ctim.Nsec),
		Mode:      st.Mode,
		Nlink:     fs.links(n, uint32(st.Nlink)),
		Owner:     fuse.Owner{Uid: uid, Gid: gid},
		Rdev:      uint32(st.Rdev),
		Blksize:   uint32(st.Blksize),
	}
}

// links is st_nlink. A merged directory has 1, since counting its subdirectories would mean reading it on all layers;
// find(1) and others take 1 for "not told" (ovl_getattr).
func (fs *FS) links(n *node, real uint32) uint32 {
	switch {
	case n.isDir() && (n.dir.merged() || fs.options().StaticNlink):
		return 1
	case n.index != nil && n.upper.Load():
		return uint32(n.index.links.Load())
	}
	return real
}

// GetAttr implements fuse.RawFileSystem.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	return fs.replyAttr(n, out)
}

func (fs *FS) replyAttr(n *node, out *fuse.AttrOut) fuse.Status {
	var st unix.Stat_t
	err := fs.statNode(n, &st)
	if err == unix.ENOENT && fs.handles.stat(n, &st) { // somebody has removed it on the host while it is open
		err = nil
	}
	if err != nil {
		return fs.nodeStatus("getattr", n, err)
	}
	fs.fillAttr(n, &st, &out.Attr)
	out.SetTimeout(fs.attrTTL(n, uint32(st.Nlink)))
	return fuse.OK
}

// Statx implements fuse.RawFileSystem. The kernel asks for it only where GetAttr does not do: for the time of birth.
func (fs *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	var stx unix.Statx_t
	err := n.use(func(r layer.Ref) error {
		if err := r.Statx(unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx); err != nil {
			return err
		}
		return fs.overrideStatx(n, r, &stx)
	})
	if err != nil {
		return fs.nodeStatus("statx", n, err)
	}
	uid, gid := fs.owners.shown(stx.Uid, stx.Gid)
	out.Statx = fuse.Statx{
		Mask:           stx.Mask & (unix.STATX_BASIC_STATS | unix.STATX_BTIME),
		Blksize:        stx.Blksize,
		Attributes:     stx.Attributes,
		AttributesMask: stx.Attributes_mask,
		Nlink:          fs.links(n, stx.Nlink),
		Uid:            uid,
		Gid:            gid,
		Mode:           stx.Mode,
		Ino:            n.ino.Load(),
		Size:           stx.Size,
		Blocks:         stx.Blocks,
		RdevMajor:      stx.Rdev_major,
		RdevMinor:      stx.Rdev_minor,
	}
	out.Atime.FromStatxTimestamp(&stx.Atime)
	out.Btime.FromStatxTimestamp(&stx.Btime)
	out.Ctime.FromStatxTimestamp(&stx.Ctime)
	out.Mtime.FromStatxTimestamp(&stx.Mtime)
	ttl := fs.attrTTL(n, stx.Nlink)
	out.AttrValid, out.AttrValidNsec = uint64(ttl/time.Second), uint32(ttl%time.Second)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem. Like ovl_setattr: copy up, then change the copy.
func (fs *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if err := fs.maySetAttr(n, in); err != nil {
		return fs.nodeStatus("setattr", n, err)
	}
	size, truncate := in.GetSize()
	if err := fs.ensureUpper(n, copyUpFor{data: truncate, truncate: truncate && size == 0, caller: by(&in.InHeader, cancel)}); err != nil {
		return fs.nodeStatus("setattr", n, err)
	}
	if truncate && n.passedBelow() {
		fs.split(n)
		return fuse.Status(unix.ESTALE)
	}
	if err := n.changing(func() error { return n.use(func(r layer.Ref) error { return fs.change(n, r, in) }) }); err != nil {
		return fs.nodeStatus("setattr", n, err)
	}
	return fs.replyAttr(n, out)
}

// change applies what in asks for to r, the object of n in the upper. The owner comes before the mode, since a change of owner
// clears bits of the mode; the times come last, since everything else changes them.
func (fs *FS) change(n *node, r layer.Ref, in *fuse.SetAttrIn) error {
	if size, ok := in.GetSize(); ok {
		if err := fs.dropCapabilities(r); err != nil {
			return err
		}
		if err := fs.truncate(r, in, int64(size)); err != nil {
			return err
		}
	}
	const details = fuse.FATTR_FH | fuse.FATTR_LOCKOWNER | fuse.FATTR_CTIME
	if in.Valid&^details == 0 {
		return fs.chownToNobody(n, r, &in.InHeader)
	}
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		uid, _ := in.GetUID()
		gid, _ := in.GetGID()
		uid, gid = fs.owners.stored(uid, gid)
		if err := fs.chown(r, uid, gid); err != nil && !fs.owners.Squashed() {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := fs.chmod(r, mode); err != nil {
			return err
		}
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := fs.dropPrivileges(r, &in.InHeader); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		return r.Utimens([2]unix.Timespec{
			timeArg(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
			timeArg(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
		})
	}
	return nil
}

// chownToNobody is chown(-1, -1), or the first write of an ordinary user to a file with privileges: both arrive as a
// request for nothing, and clear what a change of owner clears. Who may not change the mode may not do the former; the
// kernel, which leaves the clearing to us, has not checked it. The latter needs the file open for writing.
func (fs *FS) chownToNobody(n *node, r layer.Ref, caller *fuse.InHeader) error {
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	privileged := st.Mode&unix.S_ISUID != 0 || st.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP
	owner, _ := fs.owners.shown(st.Uid, st.Gid)
	if privileged && !n.isDir() && caller.Uid != 0 && caller.Uid != owner && n.writers.Load() == 0 {
		return unix.EPERM
	}
	const nobody = ^uint32(0)
	if err := fs.chown(r, nobody, nobody); err != nil {
		return err
	}
	return fs.dropPrivileges(r, caller) // what the system leaves to us, since we have the privilege to keep it
}

// truncate sets the size, through the open file if the caller has one: it may be allowed to write where the name is
// not.
func (fs *FS) truncate(r layer.Ref, in *fuse.SetAttrIn, size int64) error {
	if fh, ok := in.GetFh(); ok {
		if f := fs.handles.file(fh); f != nil {
			return f.with(func(fd int) error { return sys.Ftruncate(fd, size) })
		}
	}
	return r.Truncate(size)
}

func timeArg(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	default:
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
}

// dropPrivileges clears set-user-id and set-group-id as a write by an ordinary user does (setattr_should_drop_suidgid).
// The system would do it for a process that has not the daemon's privileges.
func (fs *FS) dropPrivileges(r layer.Ref, caller *fuse.InHeader) error {
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	if mode := fs.withoutPrivileges(&st, caller); mode != st.Mode {
		return fs.chmod(r, mode&0o7777)
	}
	return nil
}

// withoutPrivileges is the mode less what a write clears. S_ISGID without group execution is no privilege (it used to
// mean mandatory locking): only those outside the group lose it, without CAP_FSETID (in_group_or_capable).
func (fs *FS) withoutPrivileges(st *unix.Stat_t, caller *fuse.InHeader) uint32 {
	mode := st.Mode
	if mode&unix.S_IFMT != unix.S_IFREG {
		return mode
	}
	mode &^= unix.S_ISUID
	if mode&unix.S_ISGID == 0 {
		return mode
	}
	_, gid := fs.owners.shown(st.Uid, st.Gid)
	if mode&unix.S_IXGRP != 0 || !inGroup(caller, gid) && !capable(caller, unix.CAP_FSETID) {
		mode &^= unix.S_ISGID
	}
	return mode
}

// StatFs implements fuse.RawFileSystem: the numbers of the file system that takes the writes.
func (fs *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := fs.root.dir.top().Statfs(&st); err != nil {
		return fs.status("statfs", "", err)
	}
	*out = fuse.StatfsOut{
		Blocks:  st.Blocks,
		Bfree:   st.Bfree,
		Bavail:  st.Bavail,
		Files:   st.Files,
		Ffree:   st.Ffree,
		Bsize:   uint32(st.Bsize),
		NameLen: uint32(st.Namelen),
		Frsize:  uint32(st.Frsize),
	}
	return fuse.OK
}
