package union

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// creation is a request for a new object.
type creation struct {
	parent *node
	name   string
	caller *fuse.InHeader
	mode   uint32 // with the type
	rdev   uint32
	umask  uint32
	cancel <-chan struct{}

	// make makes the object as an entry of a directory, with the ids and the umask of the caller in force. That
	// directory has the group, the set-group-id bit and the default ACL of the parent, so what is born in it
	// inherits what it should.
	make func(dir *layer.Dir, name string, mode uint32) error
}

func (c *creation) isDir() bool { return c.mode&unix.S_IFMT == unix.S_IFDIR }

// Mknod implements fuse.RawFileSystem.
func (fs *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == 0 { // would be a whiteout (ovl_mknod)
		return fuse.EPERM
	}
	return fs.create(creation{
		parent: fs.node(in.NodeId), name: name, caller: &in.InHeader, mode: in.Mode, rdev: in.Rdev, umask: in.Umask, cancel: cancel,
		make: func(dir *layer.Dir, name string, mode uint32) error { return dir.Mknod(name, mode, uint64(in.Rdev)) },
	}, out)
}

// Mkdir implements fuse.RawFileSystem.
func (fs *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(creation{
		parent: fs.node(in.NodeId), name: name, caller: &in.InHeader, mode: unix.S_IFDIR | in.Mode, umask: in.Umask, cancel: cancel,
		make: func(dir *layer.Dir, name string, mode uint32) error { return dir.Mkdir(name, mode&0o7777) },
	}, out)
}

// Symlink implements fuse.RawFileSystem.
func (fs *FS) Symlink(cancel <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.create(creation{
		parent: fs.node(header.NodeId), name: name, caller: header, mode: unix.S_IFLNK, cancel: cancel,
		make: func(dir *layer.Dir, name string, _ uint32) error { return dir.Symlink(target, name) },
	}, out)
}

// Create implements fuse.RawFileSystem.
func (fs *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	fd := -1
	parent := fs.node(in.NodeId)
	n, st, err := fs.createNode(creation{
		parent: parent, name: name, caller: &in.InHeader, mode: unix.S_IFREG | in.Mode, umask: in.Umask, cancel: cancel,
		make: func(dir *layer.Dir, name string, mode uint32) (err error) {
			fd, err = dir.Create(name, backingFlags(in.Flags), mode&0o7777)
			return err
		},
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fs.status("create", name, err)
	}
	return fs.replyCreate(parent, n, &st, fd, in.Flags, out)
}

// replyCreate answers with the new file n of parent, which fd is an open file of.
func (fs *FS) replyCreate(parent, n *node, st *unix.Stat_t, fd int, flags uint32, out *fuse.CreateOut) fuse.Status {
	f := newFile(n, fd, true, int(flags))
	if err := fs.startIO(f, stampOf(f), &out.OpenOut); err != nil {
		f.close()
		return fs.nodeStatus("create", n, err)
	}
	fs.fillEntry(parent, n, st, &out.EntryOut)
	out.SetAttrTimeout(fs.bornAttrTTL(n, uint32(st.Nlink)))
	fs.replyOpen(f, &out.OpenOut)
	return fuse.OK
}

// Tmpfile implements fuse.RawFileSystem: a file that has no name, and may get one by Link.
func (fs *FS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	parent := fs.node(in.NodeId)
	if parent == nil {
		return fuse.Status(unix.ESTALE)
	}
	if err := fs.unprotected(parent, cow.Immutable); err != nil {
		return fs.nodeStatus("tmpfile", parent, err)
	}
	if err := fs.ensureUpper(parent, copyUpFor{caller: by(&in.InHeader, cancel)}); err != nil {
		return fs.nodeStatus("tmpfile", parent, err)
	}
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	var fd int
	err := fs.bornUnnamed(&creation{
		parent: parent, caller: &in.InHeader, mode: unix.S_IFREG | in.Mode, umask: in.Umask,
		make: func(dir *layer.Dir, _ string, mode uint32) (err error) {
			fd, err = dir.CreateUnnamed(backingFlags(in.Flags), mode&0o7777)
			return err
		},
	}, func() layer.Ref { return layer.RefFD(fd) })
	if err != nil {
		return fs.nodeStatus("tmpfile", parent, err)
	}
	n, st, err := fs.unnamedNode(parent, fd)
	if err != nil {
		unix.Close(fd)
		return fs.nodeStatus("tmpfile", parent, err)
	}
	return fs.replyCreate(parent, n, &st, fd, in.Flags, out)
}

func (fs *FS) unnamedNode(parent *node, fd int) (*node, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := fs.statUpper(layer.RefFD(fd), &st); err != nil {
		return nil, st, err
	}
	pin, err := layer.RefFD(fd).OpenPath()
	if err != nil {
		return nil, st, err
	}
	n := &node{kind: unix.S_IFREG, parent: parent, pin: int32(pin), dead: true, linkable: true}
	n.upper.Store(true)
	n.ino.Store(fs.mapInode(fs.stack.Upper, st.Dev, st.Ino))
	return fs.nodes.add(n, keyOf(&st)), st, nil
}

func (fs *FS) create(c creation, out *fuse.EntryOut) fuse.Status {
	n, st, err := fs.createNode(c)
	if err != nil {
		return fs.status("create", c.name, err)
	}
	fs.fillEntry(c.parent, n, &st, out)
	return fuse.OK
}

// createNode makes an object in the upper layer and returns its node. Like ovl_create_or_link.
func (fs *FS) createNode(c creation) (*node, unix.Stat_t, error) {
	var st unix.Stat_t
	if c.parent == nil {
		return nil, st, unix.ESTALE
	}
	if err := fs.mayMake(c.name); err != nil {
		return nil, st, err
	}
	if err := fs.unprotected(c.parent, cow.Immutable); err != nil {
		return nil, st, err
	}
	if err := fs.ensureUpper(c.parent, copyUpFor{caller: by(c.caller, c.cancel)}); err != nil {
		return nil, st, err
	}
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	c.parent.dir.entriesMu.Lock()
	defer c.parent.dir.entriesMu.Unlock()
	if c.parent.isDead() {
		return nil, st, unix.ENOENT
	}
	if err := fs.createLocked(c); err != nil {
		return nil, st, err
	}
	return fs.newNode(c.parent, c.name)
}

// createLocked makes the object, where nothing shows under its name. If no lower layer has something there, the upper
// directory is not asked first: it refuses what it has.
//
// Preconditions: FS.renameMu is held, and the entries of the parent for writing.
func (fs *FS) createLocked(c creation) error {
	below, err := fs.lowerHas(c.parent, c.name)
	if err != nil {
		return err
	}
	if !below {
		if err := fs.createPlain(c); err != unix.EEXIST {
			return err
		}
	}
	e, err := fs.resolve(c.parent, c.name)
	switch {
	case err != nil:
		return err
	case e.exists():
		return unix.EEXIST
	case e.where == hidden:
		return fs.createOverWhiteout(c)
	default:
		return fs.createPlain(c)
	}
}

// newNode returns the node of an object that was just made. It has no marks and no origin, and a directory has nothing below
// it, so they are not asked for.
func (fs *FS) newNode(parent *node, name string) (*node, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := fs.statUpper(parent.dir.upper.Load().At(name), &st); err != nil {
		return nil, st, err
	}
	n := &node{kind: st.Mode & unix.S_IFMT, parent: parent, name: name, pin: -1}
	n.upper.Store(true)
	n.ino.Store(fs.mapInode(fs.stack.Upper, st.Dev, st.Ino))
	if n.kind == unix.S_IFDIR {
		dir, err := parent.dir.upper.Load().OpenDir(name)
		if err != nil {
			return nil, st, err
		}
		n.dir = &directory{}
		n.dir.upper.Store(dir)
	}
	return fs.nodes.add(n, keyOf(&st)), st, nil
}

// createPlain makes the object where the upper directory has nothing of the name.
func (fs *FS) createPlain(c creation) error {
	dir := c.parent.dir.upper.Load()
	err := fs.born(&c, dir, c.name)
	if err != nil || !c.isDir() || len(c.parent.dir.lowers) == 0 || !fs.sealsDirectories() {
		return err
	}
	return fs.setOpaque(dir.At(c.name))
}

// sealsDirectories reports whether a new directory in a merged one is made opaque though nothing is below it: the
// lookups in it are spared then. Not in a union whose layers may change while it is not mounted, since what is added
// below would not show. Like ovl_create_upper with ovl_allow_offline_changes.
func (fs *FS) sealsDirectories() bool {
	opt := fs.stack.Spec.Options
	return opt.Redirects().Creates() || opt.Metacopy || opt.Indexes()
}

// createOverWhiteout makes the object aside and puts it in the place of the whiteout in one step. Like
// ovl_create_over_whiteout, but what the object inherits from its parent it gets from a stand-in, by the rules of the
// file system itself.
func (fs *FS) createOverWhiteout(c creation) error {
	work := fs.stack.Work
	standIn, name, err := fs.makeStandIn(c.parent.dir.upper.Load())
	if err != nil {
		return err
	}
	defer func() {
		standIn.Close()
		_ = work.Dir().RemoveAll(name)
	}()
	const child = "new"
	err = fs.born(&c, standIn, child)
	if err != nil {
		return err
	}
	how := layer.Replace
	if c.isDir() {
		how = layer.Exchange // a directory cannot replace a whiteout by a plain rename
		if err := fs.setOpaque(standIn.At(child)); err != nil {
			return err
		}
	}
	temp := work.TempName()
	if err := standIn.Rename(child, work.Dir(), temp, 0); err != nil {
		return err
	}
	staged := work.StageNamed(temp)
	defer staged.Discard()
	return staged.Publish(c.parent.dir.upper.Load(), c.name, how)
}

// makeStandIn makes a directory in the staging directory from which new entries inherit what they would from dir: the
// group and the set-group-id bit, and the default ACL.
func (fs *FS) makeStandIn(dir *layer.Dir) (standIn *layer.Dir, name string, err error) {
	staging := fs.stack.Work.Dir()
	var st unix.Stat_t
	if err := dir.Self().Stat(&st); err != nil {
		return nil, "", err
	}
	name = fs.stack.Work.TempName()
	if err := staging.Mkdir(name, 0o700); err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			_ = staging.RemoveAll(name)
		}
	}()
	made := staging.At(name)
	if st.Mode&unix.S_ISGID != 0 {
		if err := made.Chown(^uint32(0), st.Gid); err != nil {
			return nil, "", err
		}
		if err := made.Chmod(0o700 | unix.S_ISGID); err != nil {
			return nil, "", err
		}
	}
	const defaultACL = "system.posix_acl_default"
	acl, err := dir.Self().Getxattr(defaultACL)
	if err == nil {
		err = made.Setxattr(defaultACL, acl, 0)
	}
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return nil, "", err
	}
	standIn, err = staging.OpenDir(name)
	return standIn, name, err
}
