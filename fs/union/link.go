package union

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// Link implements fuse.RawFileSystem. Like ovl_link: the file is copied up, then gets one more name in the upper.
func (fs *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, n := fs.node(in.NodeId), fs.node(in.Oldnodeid)
	if parent == nil || n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if !n.mayLink() {
		return fuse.ENOENT
	}
	if err := fs.mayMake(name); err != nil {
		return fs.status("link", name, err)
	}
	if err := fs.unprotected(n, cow.Immutable|cow.AppendOnly); err != nil {
		return fs.status("link", name, err)
	}
	if err := fs.unprotected(parent, cow.Immutable); err != nil {
		return fs.status("link", name, err)
	}
	for _, up := range []*node{n, parent} {
		if err := fs.ensureUpper(up, copyUpFor{caller: by(&in.InHeader, cancel)}); err != nil {
			return fs.status("link", name, err)
		}
	}
	if n.meta.Load() {
		if err := fs.setLinkRedirect(n); err != nil {
			return fs.status("link", name, err)
		}
	}
	linked, st, err := fs.link(parent, name, n)
	if err != nil {
		return fs.status("link", name, err)
	}
	fs.fillEntry(parent, linked, &st, out)
	return fuse.OK
}

// mayLink reports whether the node can get one more name: what has lost its last one cannot (vfs_link).
func (n *node) mayLink() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !n.dead || n.linkable
}

func (fs *FS) link(parent *node, name string, n *node) (*node, unix.Stat_t, error) {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.Lock()
	defer parent.dir.entriesMu.Unlock()
	var none unix.Stat_t
	if parent.isDead() {
		return nil, none, unix.ENOENT
	}
	e, err := fs.resolve(parent, name)
	if err != nil {
		return nil, none, err
	}
	if e.exists() {
		return nil, none, unix.EEXIST
	}
	if n.origin {
		if err := fs.markImpure(parent); err != nil {
			return nil, none, err
		}
	}
	link := func() error {
		return n.use(func(r layer.Ref) error { return fs.linkTo(r, parent, name, e.where == hidden) })
	}
	if n.index != nil {
		err = fs.giveName(n, link)
	} else {
		err = link()
	}
	if err != nil {
		return nil, none, err
	}
	fs.revive(n, parent, name)
	return fs.lookupLocked(parent, name)
}

func (fs *FS) linkTo(r layer.Ref, parent *node, name string, overWhiteout bool) error {
	dir, work := parent.dir.upper.Load(), fs.stack.Work
	if !overWhiteout {
		return r.LinkTo(dir, name)
	}
	temp := work.TempName() // a link never replaces: give it a name in the staging directory, then rename
	if err := r.LinkTo(work.Dir(), temp); err != nil {
		return err
	}
	staged := work.StageNamed(temp)
	defer staged.Discard()
	return staged.Publish(dir, name, layer.Replace)
}

// revive gives a node that had no name (O_TMPFILE) the one that it has now.
func (fs *FS) revive(n, parent *node, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dead {
		return
	}
	if n.pin >= 0 {
		unix.Close(int(n.pin))
		n.pin = -1
	}
	n.dead, n.linkable = false, false
	n.name = name
	if n.parent != parent {
		fs.nodes.moved(n, n.parent, parent)
		n.parent = parent
	}
}
