package union

import (
	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"golang.org/x/sys/unix"
)

// copyUpFor says what a copy-up is needed for.
type copyUpFor struct {
	data     bool // the data will be changed
	truncate bool // they will be thrown away, so that they need not be copied
	xattr    bool // an extended attribute will be changed, for which the kernel links no second name (ovl_xattr_set)
	lazy     bool // they need not all be there: see lazy.go
	caller   caller
}

// ensureUpper returns once n is of the upper layer. Ancestors are copied up first, one at a time and from the top, so
// that a crash leaves a shorter path and never a hole (ovl_copy_up_flags). EROFS in a union that cannot be written.
//
// Preconditions: no lock below file.mu is held.
func (fs *FS) ensureUpper(n *node, why copyUpFor) error {
	if err := fs.writable(); err != nil {
		return err
	}
	copied := n.upper.Load()
	for !n.upper.Load() {
		next := fs.topmostLower(n)
		reason := why
		if next != n {
			reason.data, reason.truncate, reason.lazy = false, false, false
		}
		if err := fs.copyUp(next, reason); err != nil {
			return err
		}
	}
	if !copied || !why.xattr {
		if err := fs.ensureLinked(n, why); err != nil {
			return err
		}
	}
	if why.data && n.meta.Load() && !(why.lazy && !why.truncate && n.filling() != nil) {
		return fs.copyUpData(n, why)
	}
	return nil
}

// topmostLower returns the node that has to be copied up next for n to be. A node without a name needs no ancestors.
func (fs *FS) topmostLower(n *node) *node {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	if n.isDead() {
		return n
	}
	for {
		parent, _ := n.place()
		if parent == nil || parent.upper.Load() {
			return n
		}
		n = parent
	}
}

// copyUp makes n a node of the upper layer, whose parent is one already. Nothing but n waits for it.
func (fs *FS) copyUp(n *node, why copyUpFor) (err error) {
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	if n.upper.Load() { // somebody else was faster
		return nil
	}
	ended := fs.observeCopyUp()
	defer func() { ended(err) }()
	if err := fs.findDeferred(n); err != nil {
		return err
	}
	var src cow.Source
	err = n.use(func(r layer.Ref) error { // it stays where it is: only copy-up moves a lower node
		src.Ref, src.Layer = r, fs.layerOf(n)
		src.Override = fs.overrideOf(src.Layer)
		return fs.stat(src.Layer, r, &src.Stat)
	})
	if err != nil {
		return err
	}
	brokenLink := !n.isDir() && src.Stat.Nlink > 1 && n.index == nil
	if src.Flags, err = cow.FlagsOf(src.Ref, &src.Stat); err != nil {
		return err
	}
	n.protected.Store(uint32(src.Flags.Protection())) // which is not asked for before it is of the upper layer
	opt := cow.Options{NoData: why.truncate, Origin: !brokenLink, Indexed: n.index != nil, Cancelled: why.caller.killed}
	opt.Metacopy = fs.stack.Spec.Options.Metacopy && !why.data && n.kind == unix.S_IFREG && src.Stat.Size > 0
	hasData := src.Ref
	if n.meta.Load() { // its layer was the upper one of another union, or it has its data in a data-only layer
		src.Data = layer.RefFD(int(n.data))
		hasData = src.Data
	}
	if why.lazy && fs.mayBeLazy(n, &src, opt) {
		if done, err := fs.copyUpLazily(n, src, opt); done || err != nil {
			return err
		}
	}
	staged, err := fs.copier.Build(src, opt)
	if err != nil {
		return err
	}
	defer staged.Discard()
	if !opt.Metacopy {
		return fs.publishCopy(n, staged, brokenLink, -1)
	}
	data, err := hasData.OpenPath()
	if err != nil {
		return err
	}
	if err := fs.publishCopy(n, staged, brokenLink, data); err != nil {
		unix.Close(data)
		return err
	}
	return nil
}

// publishCopy puts a finished copy in the place of n. A copy of what has lost its name meanwhile stays without one. If the
// copy has no data, data is the descriptor of the lower file that has them, and becomes the node's; else it is -1.
//
// Precondition: n.copyMu is held.
func (fs *FS) publishCopy(n *node, staged *layer.Staged, brokenLink bool, data int) error {
	if n.index != nil {
		return fs.publishInIndex(n, staged, data)
	}
	var st unix.Stat_t
	if err := staged.Ref().Stat(&st); err != nil {
		return err
	}
	pin, err := staged.Ref().OpenPath()
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			unix.Close(pin)
		}
	}()

	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent, name := n.place()
	parent.dir.entriesMu.Lock()
	defer parent.dir.entriesMu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()

	if n.dead {
		if n.isDir() { // nothing of it can be changed but what nobody will see
			return unix.ENOENT
		}
		keep = true
		n.pin = int32(pin)
		n.setData(data)
		n.upper.Store(true)
		return nil
	}
	if n.parent != parent || n.name != name {
		return unix.ESTALE // it was moved on the host meanwhile: the kernel's client looks it up again
	}
	var dir *layer.Dir // once it is published, nothing may fail any more
	if n.isDir() {
		keep = true
		if dir, err = parent.dir.upper.Load().Adopt(pin, name); err != nil {
			return err
		}
	}
	if err := fs.publishIn(parent, name, staged, !brokenLink); err != nil {
		if dir != nil {
			dir.Close()
		}
		return err
	}
	if dir != nil {
		n.dir.upper.Store(dir)
	}
	fs.nodes.rekey(n, keyOf(&st))
	if brokenLink { // the copy is not the file that the other names stand for, and must not look like it
		n.ino.Store(fs.mapInode(fs.stack.Upper, st.Dev, st.Ino))
		fs.kernel.soon(func() { fs.kernel.forgetNode(parent.id) }) // the listing of which has the number
	} else {
		fs.nodes.borrow(n)
	}
	n.origin = !brokenLink
	n.setData(data)
	n.upper.Store(true)
	if fs.kernel != nil { // what it remembers is the lower object's, of which not all was kept
		fs.kernel.forgetAttributes(n.id)
	}
	return nil
}

// publishIn links a copy into the upper directory of parent, whose times a copy-up does not change.
//
// Precondition: parent.dir.entriesMu is held.
func (fs *FS) publishIn(parent *node, name string, staged *layer.Staged, origin bool) error {
	dir := parent.dir.upper.Load()
	if origin {
		if err := fs.markImpure(parent); err != nil {
			return err
		}
	}
	return keepTimes(dir, func() error { return staged.Publish(dir, name, layer.Add) })
}

// keepTimes does something that changes a directory, and sets its times back: best effort, as in ovl_copy_up_one.
func keepTimes(dir *layer.Dir, change func() error) error {
	var before unix.Stat_t
	if err := dir.Self().Stat(&before); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	_ = dir.Self().Utimens([2]unix.Timespec{before.Atim, before.Mtim})
	return nil
}

// markImpure notes on the upper directory of n that its entries may have an origin, so that whoever reads it asks for
// their inode numbers (ovl_set_impure).
func (fs *FS) markImpure(n *node) error {
	if n.dir.impure.Load() {
		return nil
	}
	err := n.dir.upper.Load().Self().Setxattr(fs.stack.Xattr.Impure, []byte("y"), 0)
	if err == unix.EOPNOTSUPP && fs.options().AUFSMarks {
		return nil // then there are no origins either
	}
	if err != nil {
		return err
	}
	n.dir.impure.Store(true)
	return nil
}
