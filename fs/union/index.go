package union

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// With index=on the names of a lower file are names of one file in the union, before it is copied up and after: see
// [cow.Index]. So there is one node for all of them. It is reached through the index once the file was copied up, and
// of its names those are in the upper layer by which it was changed. node.parent and node.name are the name that was
// looked up last, since requests about a node do not tell by which name the user came: it is the one to be linked into
// the upper layer if the request changes the file. That is also why the kernel is told to remember none of them.

// lowerLink is what a lookup finds out about a lower file of several names.
type lowerLink struct {
	name string      // of its copy in the index, if it has one
	st   unix.Stat_t // of the lower file
	up   bool        // it was copied up
}

// indexed is what a node that is in the index, or will be when it is copied up, has beyond others.
type indexed struct {
	name  string    // in the index
	entry layer.Ref // the same
	lower uint64    // links of the lower file

	unlinked bool // the name that was looked up last is not in the upper layer; guarded by node.mu

	mu    sync.Mutex    // held while a name is given or taken; see the package comment
	links atomic.Uint64 // names in the union; guarded by mu, but to read it once the node is of the upper
}

// lookupIndex takes e, a lower object, for what the index has of it. Like ovl_lookup_index.
func (fs *FS) lookupIndex(e *entry, name string) error {
	if fs.index == nil || e.isDir() || e.st.Nlink <= 1 {
		return nil
	}
	link := &lowerLink{st: e.st}
	var err error
	if link.name, err = fs.index.Name(e.dir.At(name), &e.st); err != nil || link.name == "" {
		return err
	}
	var st unix.Stat_t
	switch err := fs.statUpper(fs.index.At(link.name), &st); {
	case err == unix.ENOENT:
	case err != nil:
		return err
	case whiteout.Is(&st) || (st.Mode^e.st.Mode)&unix.S_IFMT != 0:
		fs.log.Printf("%q has an entry in the index that is no copy of it: unmount, and remove the index in the work directory", name)
		return unix.EIO
	default:
		e.st, link.up = st, true
	}
	e.link = link
	return nil
}

// indexOf returns what the index knows of a new node, of which e is the entry and ref the object in the layer; nil if
// nothing.
func (fs *FS) indexOf(ref layer.Ref, e *entry) (*indexed, error) {
	switch {
	case fs.index == nil || e.isDir():
		return nil, nil
	case e.link != nil:
		x := fs.newIndexed(e.link.name, &e.link.st)
		x.unlinked = true
		if e.link.up {
			x.links.Store(fs.index.Links(x.entry, x.lower, uint64(e.st.Nlink)))
		}
		return x, nil
	case e.where != inUpper || e.st.Nlink <= 1:
		return nil, nil
	}
	name, lower, ok, err := fs.index.Of(ref, &e.st)
	if !ok || err != nil {
		return nil, err
	}
	x := fs.newIndexed(name, &lower.Stat)
	x.links.Store(fs.index.Links(x.entry, x.lower, uint64(e.st.Nlink)))
	return x, nil
}

// isIndexed reports whether the upper object ref, described by st, is in the index.
func (fs *FS) isIndexed(ref layer.Ref, st *unix.Stat_t) bool {
	if fs.index == nil || st.Nlink <= 1 {
		return false
	}
	_, _, ok, err := fs.index.Of(ref, st)
	return ok && err == nil
}

func (fs *FS) newIndexed(name string, lower *unix.Stat_t) *indexed {
	return &indexed{name: name, entry: fs.index.At(name), lower: uint64(lower.Nlink)}
}

// reached notes by which name an indexed node was looked up.
func (fs *FS) reached(n, parent *node, name string, e *entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		return
	}
	n.index.unlinked = e.where == inLower
	if !n.upper.Load() {
		n.in = e.dir
	}
	n.name = name
	if n.parent != parent {
		fs.nodes.moved(n, n.parent, parent)
		n.parent = parent
	}
}

// unlinkedName is the name by which n was looked up last, if it is not in the upper layer.
func (n *node) unlinkedName() (parent *node, name string, ok bool) {
	if n.index == nil {
		return nil, "", false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.parent, n.name, n.index.unlinked && !n.dead
}

// publishInIndex puts a finished copy in the place of n, which has no name in the upper layer yet. data is as for
// publishCopy. Like ovl_do_copy_up of what is to_index.
//
// Precondition: n.copyMu is held.
func (fs *FS) publishInIndex(n *node, staged *layer.Staged, data int) error {
	x := n.index
	if err := fs.index.Note(staged.Ref(), cow.ByUpper, x.lower, 1); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := staged.Ref().Stat(&st); err != nil {
		return err
	}
	// For writing: any directory may have a name of it, and whoever looked that up would make another node.
	fs.renameMu.Lock()
	defer fs.renameMu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := fs.index.Publish(staged, x.name); err != nil {
		return err
	}
	x.links.Store(x.lower)
	fs.nodes.rekey(n, keyOf(&st))
	fs.nodes.borrow(n)
	n.origin = true
	n.setData(data)
	n.upper.Store(true)
	if fs.kernel != nil {
		fs.kernel.forgetAttributes(n.id)
	}
	return nil
}

// ensureLinked links n, an indexed node of the upper layer, to the name by which it was looked up last.
func (fs *FS) ensureLinked(n *node, why copyUpFor) error {
	parent, name, unlinked := n.unlinkedName()
	if !unlinked {
		return nil
	}
	err := fs.linkUp(n, parent, name, why)
	if err == unix.ENOENT { // it has lost the name: then by none
		return nil
	}
	return err
}

// linkUp makes name, one of an indexed node of the upper layer, a link to it in the upper layer. ENOENT if it is no
// name of n. Like ovl_link_up.
func (fs *FS) linkUp(n, parent *node, name string, why copyUpFor) error {
	if err := fs.ensureUpper(parent, copyUpFor{caller: why.caller}); err != nil {
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
	case !e.exists(), fs.peek(parent, name, &e) != n:
		return unix.ENOENT
	case e.where == inLower:
		if err := fs.linkUpLocked(n, parent, name); err != nil {
			return err
		}
	}
	n.mu.Lock()
	if n.parent == parent && n.name == name {
		n.index.unlinked = false
	}
	n.mu.Unlock()
	return nil
}

// linkUpLocked does the linking.
//
// Precondition: parent.dir.entriesMu is held.
func (fs *FS) linkUpLocked(n, parent *node, name string) error {
	x := n.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := fs.markImpure(parent); err != nil {
		return err
	}
	links := x.links.Load()
	if err := n.use(func(r layer.Ref) error { return fs.index.Note(r, cow.ByLower, links, x.lower) }); err != nil {
		return err
	}
	dir := parent.dir.upper.Load()
	err := keepTimes(dir, func() error {
		return n.use(func(r layer.Ref) error { return r.LinkTo(dir, name) })
	})
	if err != nil {
		return err
	}
	return fs.noteLinks(n)
}

// noteLinks writes down how many names n has, before a change that adds one or takes one away, or after one that did
// neither.
//
// Precondition: n.index.mu is held.
func (fs *FS) noteLinks(n *node) error {
	return n.use(func(r layer.Ref) error {
		var st unix.Stat_t
		if err := r.Stat(&st); err != nil {
			return err
		}
		return fs.index.Note(r, cow.ByUpper, n.index.links.Load(), uint64(st.Nlink))
	})
}

// indexName is for who is about to take away or replace a name: if it is one of a file that the index keeps together,
// it is in the upper layer when this returns, where the loss can be counted. Like ovl_nlink_start.
//
// Precondition: no lock below file.mu is held.
func (fs *FS) indexName(parent *node, name string, why copyUpFor) error {
	if fs.index == nil {
		return nil
	}
	n, err := fs.indexedNode(parent, name)
	if n == nil || err != nil {
		return err
	}
	defer fs.nodes.forget(n.id, 1)
	if err := fs.ensureUpper(n, why); err != nil {
		return err
	}
	return fs.linkUp(n, parent, name, why) // it may have been looked up by another one meanwhile
}

// indexedNode returns the node of a name, with one lookup of the kernel counted, if it is one that the index keeps;
// else nil.
func (fs *FS) indexedNode(parent *node, name string) (*node, error) {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.RLock()
	defer parent.dir.entriesMu.RUnlock()
	e, err := fs.resolve(parent, name)
	if err != nil || !e.exists() || e.isDir() || e.where == inLower && e.link == nil {
		return nil, err
	}
	n, err := fs.nodeOf(parent, name, &e)
	if err != nil {
		return nil, err
	}
	if n.index == nil {
		fs.nodes.forget(n.id, 1)
		return nil, nil
	}
	return n, nil
}

// giveName does what gives n, an indexed node, one more name in the upper layer.
func (fs *FS) giveName(n *node, link func() error) error {
	x := n.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := fs.noteLinks(n); err != nil {
		return err
	}
	if err := link(); err != nil {
		return err
	}
	x.links.Add(1)
	return nil
}

// takeName does what takes a name in the upper layer from n, an indexed node. With the last one it leaves the index.
// Like ovl_nlink_start and ovl_nlink_end.
func (fs *FS) takeName(n *node, unlink func() error) error {
	x := n.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := fs.noteLinks(n); err != nil {
		return err
	}
	if x.links.Load() <= 1 { // it may be open still
		if err := fs.pinIndexed(n); err != nil {
			return err
		}
	}
	if err := unlink(); err != nil {
		return err
	}
	if left := x.links.Load() - 1; left > 0 {
		x.links.Store(left)
		return nil
	}
	fs.leaveIndex(n)
	return nil
}

// pinIndexed makes n independent of its entry in the index.
func (fs *FS) pinIndexed(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pin >= 0 {
		return nil
	}
	pin, err := n.refLocked().OpenPath()
	if err == nil {
		n.pin = int32(pin)
	}
	return err
}

// leaveIndex removes a file without names from the index, or finds that it has some: somebody has added names to the
// lower file. What cannot be done now the next mount does. Like ovl_cleanup_index.
//
// Precondition: n.index.mu is held.
func (fs *FS) leaveIndex(n *node) {
	x := n.index
	var st unix.Stat_t
	if err := x.entry.Stat(&st); err == nil && st.Nlink > 1 {
		x.links.Store(uint64(st.Nlink) - 1)
		if err := fs.noteLinks(n); err != nil {
			fs.log.Printf("count the names of %q in the index: %v", x.name, err)
		}
		return
	}
	x.links.Store(0)
	if err := fs.index.Remove(x.name); err != nil {
		fs.log.Printf("remove %q from the index: %v", x.name, err)
	}
	fs.lostName(n, true)
}
