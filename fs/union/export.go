package union

import (
	"math/rand/v2"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// File handles (name_to_handle_at(2), open_by_handle_at(2), the NFS server) of a FUSE file system are node ids, which the
// kernel gives out without asking. So a union has them only with nfs_export=on, as in overlayfs: then nodes are kept for a
// while after the kernel has forgotten them, and it finds them again by looking up "." in their id (fuse_get_dentry), and
// ".." for the directory that one is in (fuse_get_parent).

const (
	// maxKept is how many forgotten nodes are kept, about half a kilobyte each; the handles of older ones are stale.
	maxKept = 100_000

	// maxKeptPins is the same for those that need a descriptor: what is reached by another name than it was known by.
	maxKeptPins = 4096
)

// exportCapability is what the kernel is told about file handles.
func (fs *FS) exportCapability() uint64 {
	if fs.stack.Spec.Options.NFSExport {
		return fuse.CAP_EXPORT_SUPPORT
	}
	return fuse.CAP_NO_EXPORT_SUPPORT
}

// startExport makes file handles last. They are good until the union is unmounted: the generation, which is part of a
// handle, tells those of another mount, whose node ids mean something else.
func (fs *FS) startExport() {
	fs.generation = 1 + uint64(rand.Uint32N(1<<31))
	fs.nodes.named.max, fs.nodes.pinned.max = maxKept, maxKeptPins
}

// lookupID answers a lookup of "." or ".." in a node.
func (fs *FS) lookupID(id uint64, name string, out *fuse.EntryOut) fuse.Status {
	if name == ".." {
		child := fs.node(id)
		if child == nil {
			return fuse.Status(unix.ESTALE)
		}
		fs.renameMu.RLock()
		defer fs.renameMu.RUnlock()
		parent, _ := child.place()
		if parent == nil || child.isDead() {
			return fuse.ENOENT
		}
		id = parent.id
	}
	n := fs.nodes.hold(id)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	var st unix.Stat_t
	if err := fs.statNode(n, &st); err != nil {
		fs.nodes.forget(id, 1)
		return fs.nodeStatus("lookup by handle", n, err)
	}
	fs.fillEntry(nil, n, &st, out)
	return fuse.OK
}

// kept are nodes that nobody refers to, the oldest first, and some that are in use again.
type kept struct {
	max   int
	queue []*node
}

// hold returns the node with the given id, with one lookup of the kernel counted, or nil.
func (t *table) hold(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.lookups++
	}
	return n
}

// keep puts n, which nobody refers to, among the nodes that are kept. It reports false for one that cannot be asked for
// any more.
//
// Precondition: t.mu is held.
func (t *table) keep(n *node) bool {
	if t.named.max == 0 || !n.keyed {
		return false
	}
	if n.kept {
		return true
	}
	in := &t.named
	if n.mu.TryRLock() { // else somebody is about to remove it, and unkey follows
		dead, pinned := n.dead, n.pin >= 0
		n.mu.RUnlock()
		if dead { // an O_TMPFILE that was never linked
			return false
		}
		if pinned {
			in = &t.pinned
		}
	}
	if io := n.fileIO.Swap(nil); io != nil { // nothing of it is open
		io.backing.close()
	}
	n.kept = true
	in.queue = append(in.queue, n)
	return true
}

// expire drops the oldest of the nodes that are too many, and returns them to be closed outside the lock.
//
// Precondition: t.mu is held.
func (t *table) expire() (gone []*node) {
	for _, k := range []*kept{&t.named, &t.pinned} {
		for len(k.queue) > k.max {
			n := k.queue[0]
			k.queue = k.queue[1:]
			n.kept = false
			if t.byID[n.id] == n && n.lookups == 0 && n.children == 0 {
				gone = append(gone, t.remove(n)...)
			}
		}
	}
	return gone
}
