package union

import (
	"cmp"
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
)

// Rename implements fuse.RawFileSystem.
func (fs *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	oldParent, newParent := fs.node(in.NodeId), fs.node(in.Newdir)
	if oldParent == nil || newParent == nil {
		return fuse.Status(unix.ESTALE)
	}
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 { // RENAME_WHITEOUT too (ovl_rename)
		return fuse.EINVAL
	}
	r := rename{
		fs:       fs,
		from:     end{parent: oldParent, name: oldName},
		to:       end{parent: newParent, name: newName},
		exchange: in.Flags&unix.RENAME_EXCHANGE != 0,
		keep:     in.Flags&unix.RENAME_NOREPLACE != 0,
	}
	defer r.forget()
	if err := cmp.Or(fs.writable(), fs.mayMake(newName)); err != nil {
		return fs.status("rename", oldName, err)
	}
	err := errUnprepared
	if fs.index == nil { // else a name may have to be copied up by itself
		err = r.run()
	}
	if err == errUnprepared {
		if err = r.prepare(by(&in.InHeader, cancel)); err == nil {
			err = r.run()
		}
	}
	if err == errUnprepared {
		err = unix.ESTALE // it was replaced meanwhile; the kernel's client looks up again
	}
	return fs.status("rename", oldName, err)
}

// errUnprepared says that something has to be copied up first.
var errUnprepared = errors.New("a rename of what is not in the upper layer")

// end is one of the two ends of a rename: where from, where to.
type end struct {
	parent *node
	name   string
	node   *node // what it names before the rename, with one lookup counted; nil if nothing
	entry  entry
	covers bool // a lower layer has something of the name
}

// rename is one rename under way. Like ovl_rename.
type rename struct {
	fs       *FS
	from, to end
	exchange bool // RENAME_EXCHANGE
	keep     bool // RENAME_NOREPLACE
}

// isLower reports whether what is to be moved is in a lower layer, or has its name there.
func (e *end) isLower() bool {
	return !e.node.upper.Load() || e.node.index != nil && e.entry.where == inLower
}

func (r *rename) forget() {
	for _, n := range []*end{&r.from, &r.to} {
		if n.node != nil {
			r.fs.nodes.forget(n.node.id, 1)
			n.node = nil
		}
	}
}

// run renames, or returns errUnprepared.
func (r *rename) run() error {
	r.fs.renameMu.Lock()
	defer r.fs.renameMu.Unlock()
	return r.runLocked()
}

// prepare copies up what will be moved, and both directories. No lock is held.
func (r *rename) prepare(c caller) error {
	r.forget()
	for _, n := range []*end{&r.from, &r.to} {
		if err := r.lookup(n); err != nil {
			return err
		}
	}
	if r.from.node == nil {
		return unix.ENOENT
	}
	moved, err := r.allowed()
	if err != nil {
		return err
	}
	for _, n := range append(moved, r.from.parent, r.to.parent) {
		// What is being filled finds the rest of its data by its name.
		if err := r.fs.ensureUpper(n, copyUpFor{data: n.filling() != nil, caller: c}); err != nil {
			return err
		}
	}
	for _, n := range []*end{&r.from, &r.to} {
		if err := r.fs.indexName(n.parent, n.name, copyUpFor{caller: c}); err != nil {
			return err
		}
	}
	return nil
}

// allowed returns what is to be moved, if it may be.
func (r *rename) allowed() (moved []*node, err error) {
	if err := r.unprotected(); err != nil {
		return nil, err
	}
	moved = []*node{r.from.node}
	if r.exchange {
		if r.to.node == nil {
			return nil, unix.ENOENT
		}
		moved = append(moved, r.to.node)
	} else if r.keep && r.to.node != nil {
		return nil, unix.EEXIST
	}
	for _, n := range moved {
		// A directory that lower layers show through cannot be moved unless it can note where they are: they
		// would not come along. The kernel's answer too (ovl_can_move); mv(1) and others then copy it.
		if n.isDir() && len(n.dir.lowers) > 0 && !r.fs.stack.Spec.Options.Redirects().Creates() {
			return nil, unix.EXDEV
		}
	}
	return moved, nil
}

// unprotected returns EPERM if something is protected that the rename would change, as may_delete and may_create do.
func (r *rename) unprotected() error {
	const grows, any = cow.Immutable, cow.Immutable | cow.AppendOnly
	intoWay := grows
	if r.to.node != nil && !r.keep { // something there goes
		intoWay = any
		if err := r.fs.unprotected(r.to.node, any); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		n    *node
		ways cow.Protection
	}{{r.from.parent, any}, {r.from.node, any}, {r.to.parent, intoWay}} {
		if err := r.fs.unprotected(c.n, c.ways); err != nil {
			return err
		}
	}
	return nil
}

func (r *rename) lookup(n *end) error {
	r.fs.renameMu.RLock()
	defer r.fs.renameMu.RUnlock()
	n.parent.dir.entriesMu.RLock()
	defer n.parent.dir.entriesMu.RUnlock()
	node, _, err := r.fs.lookupLocked(n.parent, n.name)
	if err == unix.ENOENT {
		return nil
	}
	n.node = node
	return err
}

// runLocked looks what is there, now that nothing moves, and renames.
//
// Precondition: FS.renameMu is held for writing, so nobody holds the entries of any directory.
func (r *rename) runLocked() error {
	for _, n := range []*end{&r.from, &r.to} {
		if !n.parent.upper.Load() {
			return errUnprepared
		}
		if err := r.look(n); err != nil {
			return err
		}
	}
	switch {
	case r.from.node == nil, r.exchange && r.to.node == nil:
		return unix.ENOENT
	}
	if _, err := r.allowed(); err != nil {
		return err
	}
	switch {
	case r.from.node == r.to.node: // two names of one file: nothing to do, says rename(2)
		return nil
	case r.from.isLower(), r.exchange && r.to.isLower(),
		r.from.node.filling() != nil, r.exchange && r.to.node.filling() != nil:
		return errUnprepared
	}
	for _, n := range []*node{r.from.node, r.to.node} {
		if n == nil || !n.isDir() || !n.upper.Load() {
			continue
		}
		// Nobody may open the directory again by its name while that changes.
		upper := n.dir.upper.Load()
		if _, err := upper.Hold(); err != nil {
			return err
		}
		defer upper.Done()
	}
	if r.exchange {
		return r.swap()
	}
	return r.move()
}

// look fills in what the layers have of n, and drops the node if it is not there any more.
func (r *rename) look(n *end) error {
	if n.parent.isDead() {
		return unix.ENOENT
	}
	var err error
	if n.entry, err = r.fs.resolve(n.parent, n.name); err != nil {
		return err
	}
	if n.covers, err = r.fs.lowerHas(n.parent, n.name); err != nil {
		return err
	}
	if n.node != nil {
		r.fs.nodes.forget(n.node.id, 1)
		n.node = nil
	}
	if n.entry.exists() {
		n.node, err = r.fs.nodeOf(n.parent, n.name, &n.entry)
	}
	return err
}

// swap exchanges two upper objects. Both names are covered afterwards as they were before.
func (r *rename) swap() error {
	if err := r.arrive(r.from.node, &r.to); err != nil {
		return err
	}
	if err := r.arrive(r.to.node, &r.from); err != nil {
		return err
	}
	from, to := r.from.parent.dir.upper.Load(), r.to.parent.dir.upper.Load()
	if err := from.Rename(r.from.name, to, r.to.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	a, b := r.from.node, r.to.node
	r.moved(a, &r.from, &r.to)
	r.moved(b, &r.to, &r.from)
	return nil
}

// move renames one upper object, over what the new name has, and leaves a whiteout if something would show at the old
// name.
func (r *rename) move() error {
	if r.to.node != nil {
		if r.keep {
			return unix.EEXIST
		}
		if err := r.clearTarget(); err != nil {
			return err
		}
	}
	if err := r.arrive(r.from.node, &r.to); err != nil {
		return err
	}
	if err := r.replace(); err != nil {
		return err
	}
	r.moved(r.from.node, &r.from, &r.to)
	return nil
}

// replace renames, and notes what is not there any more.
func (r *rename) replace() error {
	target := r.to.node
	if target == nil {
		return r.renameUpper()
	}
	if !target.isDir() {
		return r.fs.loseFile(r.to.parent, r.to.name, &r.to.entry, r.renameUpper)
	}
	if err := r.fs.pinBefore(target, r.to.parent, r.to.name); err != nil {
		return err
	}
	if err := r.renameUpper(); err != nil {
		return err
	}
	r.fs.lostName(target, true)
	return nil
}

// renameUpper is the one system call that makes the change.
func (r *rename) renameUpper() error {
	from, to := r.from.parent.dir.upper.Load(), r.to.parent.dir.upper.Load()
	whiteoutThere := r.to.entry.where == hidden
	moveDir := r.from.node.isDir()
	if whiteoutThere && to.Marked { // it may be moved to the old name
		if err := r.fs.whiteouts.Admit(from); err != nil {
			return err
		}
	}
	switch {
	case r.from.covers && whiteoutThere:
		// The whiteout that is there serves for the old name.
		return from.Rename(r.from.name, to, r.to.name, unix.RENAME_EXCHANGE)
	case r.from.covers:
		return r.fs.whiteouts.Leave(from, r.from.name, to, r.to.name)
	case whiteoutThere && moveDir:
		// A directory cannot replace the whiteout: exchange them, and take the whiteout from the old name, where
		// it hides nothing.
		if err := from.Rename(r.from.name, to, r.to.name, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		_ = from.Unlink(r.from.name)
		return nil
	default:
		return from.Rename(r.from.name, to, r.to.name, 0)
	}
}

// clearTarget checks what is to be replaced, and empties the upper part of a merged directory that shows nothing. A
// directory of the upper alone is left to the rename itself.
func (r *rename) clearTarget() error {
	source, target := r.from.node, r.to.node
	switch {
	case source.isDir() && !target.isDir():
		return unix.ENOTDIR
	case !source.isDir() && target.isDir():
		return unix.EISDIR
	case !target.isDir() || len(target.dir.lowers) == 0:
		return nil
	}
	if err := r.fs.emptyLocked(target); err != nil || !target.upper.Load() {
		return err
	}
	if err := r.fs.pinBefore(target, r.to.parent, r.to.name); err != nil {
		return err
	}
	return r.fs.clearUpper(r.to.parent, r.to.name, target)
}

// arrive makes n ready for a new place: a directory must not merge with what the lower layers have there but with what
// they have where it was, as the data of a file may be only there, and the upper directory must tell that something in it has an origin.
func (r *rename) arrive(n *node, at *end) error {
	if n.isDir() && len(n.dir.lowers) > 0 {
		if sealed, err := r.fs.hiddenByAUFS(at.parent.dir.upper.Load(), at.name); err != nil || sealed {
			return cmp.Or(err, error(unix.EXDEV)) // what shows through the directory would be hidden there
		}
	}
	switch {
	case n.meta.Load(), n.isDir() && len(n.dir.lowers) > 0:
		if err := r.fs.setRedirect(n, r.from.parent == r.to.parent); err != nil {
			return err
		}
	case n.isDir() && len(at.parent.dir.lowers) > 0:
		if err := r.fs.setOpaque(n.dir.upper.Load().Self()); err != nil {
			return err
		}
	}
	if n.origin || n.isDir() && (len(n.dir.lowers) > 0 || n.dir.impure.Load()) {
		return r.fs.markImpure(at.parent)
	}
	return nil
}

// moved notes the new place of n. A node of several names is reached by another one if it did not move itself.
func (r *rename) moved(n *node, from, to *end) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.parent != from.parent || n.name != from.name {
		return
	}
	n.name = to.name
	if n.isDir() {
		n.dir.upper.Load().Moved(to.parent.dir.upper.Load(), to.name)
	}
	if n.parent != to.parent {
		if n.isDir() {
			r.fs.kernel.soon(func() { r.fs.kernel.forgetNode(n.id) }) // its listing has the number of ".."
		}
		r.fs.nodes.moved(n, n.parent, to.parent)
		n.parent = to.parent
	}
}
