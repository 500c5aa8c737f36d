package union

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// Unlink implements fuse.RawFileSystem.
func (fs *FS) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.status("unlink", name, fs.remove(by(header, cancel), header.NodeId, name, false))
}

// Rmdir implements fuse.RawFileSystem.
func (fs *FS) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.status("rmdir", name, fs.remove(by(header, cancel), header.NodeId, name, true))
}

// remove takes a name out of the union. The object itself is never copied up for that: what a lower layer has of the
// name is covered. Like ovl_do_remove.
func (fs *FS) remove(c caller, parentID uint64, name string, dir bool) error {
	parent := fs.node(parentID)
	if parent == nil {
		return unix.ESTALE
	}
	if err := fs.unprotected(parent, cow.Immutable|cow.AppendOnly); err != nil {
		return err
	}
	if err := fs.ensureUpper(parent, copyUpFor{caller: c}); err != nil {
		return err
	}
	if err := fs.indexName(parent, name, copyUpFor{caller: c}); err != nil {
		return err
	}
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.Lock()
	defer parent.dir.entriesMu.Unlock()

	e, err := fs.resolve(parent, name)
	switch {
	case err != nil:
		return err
	case !e.exists():
		return unix.ENOENT
	case e.isDir() && !dir:
		return unix.EISDIR
	case !e.isDir() && dir:
		return unix.ENOTDIR
	}
	if err := fs.entryUnprotected(parent, name, &e); err != nil {
		return err
	}
	if dir {
		return fs.removeDir(parent, name, &e)
	}
	return fs.loseFile(parent, name, &e, func() error { return fs.removeFile(parent, name, &e) })
}

// loseFile does what takes a name from the file that is the entry e of parent: to remove it, or to put something else
// in its place.
//
// Preconditions: FS.renameMu is held, and parent.dir.entriesMu for writing, or the former for writing; fs.indexName was called.
func (fs *FS) loseFile(parent *node, name string, e *entry, remove func() error) error {
	victim := fs.peek(parent, name, e)
	if fs.index != nil && (e.link != nil || e.st.Nlink > 1) {
		n, err := fs.nodeOf(parent, name, e)
		if err != nil {
			return err
		}
		defer fs.nodes.forget(n.id, 1)
		if victim = n; n.index != nil {
			if e.where == inLower {
				return unix.ESTALE // somebody put it there after fs.indexName
			}
			return fs.takeName(n, remove)
		}
	}
	if err := fs.pinBefore(victim, parent, name); err != nil {
		return err
	}
	if err := remove(); err != nil {
		return err
	}
	fs.lostName(victim, e.st.Nlink <= 1 || e.where == inLower)
	return nil
}

func (fs *FS) removeFile(parent *node, name string, e *entry) error {
	upper := parent.dir.upper.Load()
	if e.where == inLower {
		return fs.whiteouts.Cover(upper, name, whiteout.Nothing)
	}
	below, err := fs.lowerHas(parent, name)
	if err != nil {
		return err
	}
	if below {
		return fs.whiteouts.Cover(upper, name, whiteout.File)
	}
	return upper.Unlink(name)
}

// removeDir removes a directory that is empty in the union, though its upper part may be full of whiteouts.
//
// Preconditions: as for remove; e is a directory.
func (fs *FS) removeDir(parent *node, name string, e *entry) error {
	n, err := fs.nodeOf(parent, name, e)
	if err != nil {
		return err
	}
	defer fs.nodes.forget(n.id, 1)
	n.dir.entriesMu.Lock()
	defer n.dir.entriesMu.Unlock()
	if upper := n.dir.upper.Load(); upper != nil { // it stays open while it loses its name, and from then on
		if _, err := upper.Hold(); err != nil {
			return err
		}
		defer upper.Done()
	}
	if err := fs.removeEmptyDir(parent, name, e, n); err != nil {
		if err == unix.ENOTEMPTY && (fs.frozen(parent) || fs.frozen(n)) {
			return unix.EPERM // what the VFS looks at first (may_delete)
		}
		return err
	}
	if upper := n.dir.upper.Load(); upper != nil {
		if err := upper.Pin(); err != nil {
			return err
		}
	}
	fs.lostName(n, true)
	return nil
}

// frozen reports whether entries of a directory may not be removed, nor itself (chattr +i, +a).
func (fs *FS) frozen(n *node) bool {
	upper := n.dir.upper.Load()
	if upper == nil {
		return false
	}
	var stx unix.Statx_t
	err := upper.Self().Statx(unix.STATX_TYPE, &stx)
	return err == nil && stx.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
}

// removeEmptyDir removes a directory, or returns ENOTEMPTY.
//
// Preconditions: as for removeDir; n.dir.entriesMu is held.
func (fs *FS) removeEmptyDir(parent *node, name string, e *entry, n *node) error {
	upper := parent.dir.upper.Load()
	below, err := e.where == inLower, error(nil)
	if !below {
		if below, err = fs.lowerHas(parent, name); err != nil {
			return err
		}
	}
	if !below && len(n.dir.lowers) == 0 { // the upper directory is all there is: it tells by itself whether it is empty
		if err := upper.Rmdir(name); err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
	}
	if err := fs.emptyLocked(n); err != nil {
		return err
	}
	switch {
	case e.where == inLower:
		return fs.whiteouts.Cover(upper, name, whiteout.Nothing)
	case below:
		return fs.whiteouts.Cover(upper, name, whiteout.Directory)
	}
	err = upper.Rmdir(name)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	// Nothing but whiteouts, left from when there was something to hide: out of sight in one step, then away.
	work := fs.stack.Work
	temp := work.TempName()
	if err := upper.Rename(name, work.Dir(), temp, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	work.StageNamed(temp).Discard()
	return nil
}

// emptyLocked returns ENOTEMPTY if the directory shows any entry. Like ovl_check_empty_dir.
//
// Precondition: n.dir.entriesMu is held.
func (fs *FS) emptyLocked(n *node) error {
	list, err := fs.listLocked(n, false)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return unix.ENOTEMPTY
	}
	return nil
}

// clearUpper makes the upper directory of n, which shows no entries, really empty and opaque, in one step: an empty
// directory with the same metadata takes its place. A rename can replace it then. Like ovl_clear_empty.
//
// Preconditions: FS.renameMu is held for writing; n is a directory of the upper at name in parent.
func (fs *FS) clearUpper(parent *node, name string, n *node) error {
	names, err := n.dir.upper.Load().Names()
	if err != nil || len(names) == 0 {
		return err
	}
	staged, err := fs.copier.BuildLike(n.dir.upper.Load())
	if err != nil {
		return err
	}
	defer staged.Discard()
	if err := fs.setOpaque(staged.Ref()); err != nil {
		return err
	}
	return staged.Publish(parent.dir.upper.Load(), name, layer.Exchange)
}

// pinBefore gives the node a descriptor of its own before it loses the name that it is reached by, if somebody may
// still have it open.
func (fs *FS) pinBefore(n, parent *node, name string) error {
	if n == nil {
		return nil
	}
	if n.isDir() {
		if upper := n.dir.upper.Load(); upper != nil {
			return upper.Pin()
		}
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pin >= 0 || !n.upper.Load() || n.parent != parent || n.name != name {
		return nil // it is reached in another way
	}
	pin, err := n.refLocked().OpenPath()
	if err != nil {
		return err
	}
	n.pin = int32(pin)
	return nil
}

// lostName notes that a name of the node is gone from the union: its last one, if last.
func (fs *FS) lostName(n *node, last bool) {
	if n == nil || !last {
		return
	}
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	fs.nodes.unkey(n)
}
