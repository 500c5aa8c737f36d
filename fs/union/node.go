package union

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// node is one file, directory or other object of the union. There may be millions, so what few of them need is elsewhere, and
// the fields are in an order that leaves no gaps: see TestNodeSize.
type node struct {
	id    uint64      // the FUSE node id; never used again after the node is gone
	kind  uint32      // S_IFDIR, S_IFREG, ...; never changes
	upper atomic.Bool // whether the node is of the upper layer; set under mu, never cleared

	lookups  uint64 // references of the kernel; guarded by table.mu
	key      key    // under which the table finds the node; guarded by table.mu
	children int32  // nodes whose parent this is; guarded by table.mu
	keyed    bool   // whether it is in the table under key; guarded by table.mu
	kept     bool   // whether it is in a queue of the table: see export.go; guarded by table.mu

	dead     bool // it has no name in the union; guarded by mu
	linkable bool // it never had one and may get one: O_TMPFILE; guarded by mu

	protected atomic.Uint32 // a cow.Protection, of a node of the upper layer: see protect.go

	writers atomic.Int32 // files of it that are open for writing
	unseen  atomic.Int32 // how many of them may change it without the kernel taking note: see passthrough.go

	ino    atomic.Uint64          // what st_ino shows
	fileIO atomic.Pointer[fileIO] // of a regular file that was opened, or a link that was read, else nil
	copyMu sync.Mutex             // see the package comment

	mu     sync.RWMutex
	parent *node      // nil for the root; it is kept while it has children
	name   string     // the name in parent by which the node is reached
	in     *layer.Dir // where a node of a lower layer has that name; nil for a directory
	pin    int32      // O_PATH descriptor by which the node is reached instead, once it has lost its name; or -1
	data   int32      // see meta

	dir   *directory // of a directory, else nil
	index *indexed   // of a lower file of several names, and its copy, with index=on; else nil

	// meta says that the topmost layer has the metadata of a file, and data, a descriptor (O_PATH) that mu guards, is of
	// the lower file that has the data. If they are in a data-only layer, deferred says where, and data is -1 until they
	// are needed. Lazy is of such a file that is being filled, or was; see lazy.go.
	meta     atomic.Bool
	origin   bool // it may be a copy of a lower object
	lazy     atomic.Pointer[lazyFile]
	deferred *string

	// redirect is where the lower directories were looked for, or the data of a file, if not under the name in
	// this directory: another name, or a path from the root of the union if it begins with a slash. Guarded by
	// FS.renameMu.
	redirect string
}

// directory is what a directory node holds.
type directory struct {
	entriesMu sync.RWMutex // see the package comment

	upper  atomic.Pointer[layer.Dir] // nil until copied up
	lowers []*layer.Dir              // the topmost first; does not change
	impure atomic.Bool               // the upper directory is marked: some of its entries may have an origin

	names names // of lowers

	watched atomic.Bool // the kernel is told of every change that others make in lowers
	watches []int       // guarded by watcher.mu
	watcher *watcher    // nil if there are none
}

// merged reports whether the directory is made of more than one (OVL_TYPE_MERGE).
func (d *directory) merged() bool {
	return len(d.lowers) > 1 || len(d.lowers) == 1 && d.upper.Load() != nil
}

// top is the directory that attributes are taken from.
func (d *directory) top() *layer.Dir {
	if u := d.upper.Load(); u != nil {
		return u
	}
	return d.lowers[0]
}

func (n *node) isDir() bool { return n.dir != nil }

// use calls f with the object that the node stands for. The object does not move away while f runs, so f must be
// short: it is for one system call, not for copying.
func (n *node) use(f func(layer.Ref) error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return f(n.refLocked())
}

// refLocked is the object that the node stands for.
//
// Precondition: n.mu is held, or nobody else knows n yet.
func (n *node) refLocked() layer.Ref {
	switch {
	case n.dir != nil:
		return n.dir.top().Self()
	case n.pin >= 0:
		return layer.RefFD(int(n.pin))
	case n.upper.Load() && n.index != nil:
		return n.index.entry
	case n.upper.Load():
		return n.parent.dir.upper.Load().At(n.name)
	default:
		return n.in.At(n.name)
	}
}

func (fs *FS) statNode(n *node, st *unix.Stat_t) error {
	return n.use(func(r layer.Ref) error {
		if err := fs.stat(fs.layerOf(n), r, st); err != nil {
			return err
		}
		return n.addBlocks(st)
	})
}

// addBlocks puts into st, which describes the topmost object of n, the blocks that the data take, wherever they are.
//
// Precondition: n.mu is held.
func (n *node) addBlocks(st *unix.Stat_t) error {
	if !n.meta.Load() {
		return nil
	}
	if n.data < 0 { // as a guess, like the kernel's
		st.Blocks = (st.Size + int64(st.Blksize) - 1) / int64(st.Blksize) * int64(st.Blksize) / 512
		return nil
	}
	var data unix.Stat_t
	if err := layer.RefFD(int(n.data)).Stat(&data); err != nil {
		return err
	}
	st.Blocks = data.Blocks
	return nil
}

// place returns the directory and the name of the node. They stay so while FS.renameMu is held, but for a node of a
// lower layer that somebody moves on the host.
func (n *node) place() (*node, string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.parent, n.name
}

// isDead reports whether the node has lost its last name.
func (n *node) isDead() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.dead
}

// close releases what the node holds. Nobody uses it any more.
func (n *node) close() {
	if io := n.fileIO.Load(); io != nil {
		io.backing.close()
	}
	if n.pin >= 0 {
		unix.Close(int(n.pin))
	}
	n.closeData()
	if l := n.lazy.Load(); l != nil {
		l.Close()
	}
	if n.dir == nil {
		return
	}
	n.dir.watcher.remove(n)
	if u := n.dir.upper.Load(); u != nil {
		u.Close()
	}
	for _, l := range n.dir.lowers {
		l.Close()
	}
}

// key is what a node is found under: the identity of its topmost object. A lower file of several names that are not
// kept together by an index is a file of its own under each of them (ovl_hash_bylower), so its key has a hash of the name,
// too: two names of one file that have the same are one file, as they are in their layer, until it is copied up.
type key struct {
	ino  uint64
	dev  uint32 // new_encode_dev in linux/kdev_t.h: all of it
	name uint32
}

func keyOf(st *unix.Stat_t) key { return key{ino: st.Ino, dev: uint32(st.Dev)} }

var keySeed = maphash.MakeSeed()

// named is the key for one of several names.
func (k key) named(parent *node, name string) key {
	k.name = uint32(maphash.Comparable(keySeed, struct {
		parent uint64
		name   string
	}{parent.id, name})) | 1
	return k
}

// table knows all nodes.
type table struct {
	mu    sync.Mutex
	next  uint64
	byID  map[uint64]*node
	byKey map[key]*node
	byIno map[uint64]*node // those that show the number of a lower object: see borrow

	most   int    // how many nodes there were since the maps were made
	shrunk func() // called when most of them are gone, with mu held

	named, pinned kept // what is kept with nfs_export=on; empty without
}

func newTable() *table {
	return &table{next: 2, byID: map[uint64]*node{}, byKey: map[key]*node{}, byIno: map[uint64]*node{}} // 1 is the root's id
}

// get returns the node with the given id, or nil.
func (t *table) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// all returns all nodes.
func (t *table) all() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.byID))
}

// find returns the node with the given key, or nil. It counts one lookup of the kernel if count is set.
func (t *table) find(k key, count bool) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n != nil && count {
		n.lookups++
	}
	return n
}

// add makes n known under k with one lookup of the kernel. If another node was faster, that one is returned, with
// the lookup counted, and n is closed.
func (t *table) add(n *node, k key) *node {
	t.mu.Lock()
	if other := t.byKey[k]; other != nil {
		other.lookups++
		t.mu.Unlock()
		n.close()
		return other
	}
	n.id = t.next
	t.next++
	n.lookups = 1
	n.key, n.keyed = k, true
	t.byID[n.id] = n
	t.byKey[k] = n
	t.most = max(t.most, len(t.byID))
	if n.parent != nil {
		n.parent.children++
	}
	t.mu.Unlock()
	return n
}

// lazy returns the files that are not filled.
func (t *table) lazy() (list []*lazyFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		if l := n.filling(); l != nil {
			list = append(list, l)
		}
	}
	return list
}

// stands reports whether n stands for the object that st describes.
func (t *table) stands(n *node, st *unix.Stat_t) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := keyOf(st)
	return n.key.dev == k.dev && n.key.ino == k.ino
}

// rekey makes n known under another key.
func (t *table) rekey(n *node, k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.keyed && t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key, n.keyed = k, true
	t.byKey[k] = n
}

// borrow notes that n shows the inode number of the lower object that it is or was copied from, or false if another node
// does: somebody has copied an upper file or directory with its marks, and two files must not look like one.
func (t *table) borrow(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	ino := n.ino.Load()
	if other := t.byIno[ino]; other == nil || !other.keyed { // or n is the other, looked up anew
		t.byIno[ino] = n
	}
	return t.byIno[ino] == n
}

// borrowed reports whether a node shows the number of a lower object.
func (t *table) borrowed(ino uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byIno[ino] != nil
}

// unkey makes n known by its id alone: nothing that is looked up can be n any more.
func (t *table) unkey(n *node) {
	t.mu.Lock()
	if n.keyed && t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.keyed = false
	gone := t.drop(n) // it may have been kept for that alone
	t.mu.Unlock()
	closeAll(gone)
}

// moved accounts for a new parent of n.
func (t *table) moved(n, from, to *node) {
	t.mu.Lock()
	to.children++
	gone := t.unchild(from)
	t.mu.Unlock()
	closeAll(gone)
}

// forget takes back lookups of the kernel, and drops the node if that were the last. An unknown id is no error: after
// a restart of the daemon the kernel may forget what only its predecessor knew.
func (t *table) forget(id, lookups uint64) {
	t.mu.Lock()
	n := t.byID[id]
	if n == nil || id == rootID {
		t.mu.Unlock()
		return
	}
	n.lookups -= min(n.lookups, lookups)
	gone := append(t.drop(n), t.expire()...)
	t.shrink()
	t.mu.Unlock()
	closeAll(gone)
}

// shrink makes the maps anew once most of what they had is gone: a map never gets smaller.
//
// Precondition: t.mu is held.
func (t *table) shrink() {
	const (
		worthIt = 1 << 14 // nodes
		part    = 8
	)
	if t.most < worthIt || len(t.byID) > t.most/part {
		return
	}
	t.most = len(t.byID)
	t.byID, t.byKey, t.byIno = remade(t.byID), remade(t.byKey), remade(t.byIno)
	if t.shrunk != nil {
		t.shrunk()
	}
}

func remade[K comparable, V any](m map[K]V) map[K]V {
	small := make(map[K]V, len(m))
	maps.Copy(small, m)
	return small
}

// drop removes n from the table if nothing refers to it, then its parent if that was there for n alone, and so on, but
// for what is to be kept. It returns what was removed, to be closed outside the lock.
//
// Precondition: t.mu is held.
func (t *table) drop(n *node) (gone []*node) {
	if n == nil || n.id == rootID || n.lookups > 0 || n.children > 0 || t.byID[n.id] != n || t.keep(n) {
		return nil
	}
	return t.remove(n)
}

// remove is drop for a node that nothing refers to, and that is not kept.
//
// Precondition: t.mu is held.
func (t *table) remove(n *node) (gone []*node) {
	delete(t.byID, n.id)
	if n.keyed && t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	if ino := n.ino.Load(); t.byIno[ino] == n {
		delete(t.byIno, ino)
	}
	gone = append(gone, n)
	if n.parent != nil {
		gone = append(gone, t.unchild(n.parent)...)
	}
	return gone
}

// unchild takes one child from n.
//
// Precondition: t.mu is held.
func (t *table) unchild(n *node) []*node {
	n.children--
	return t.drop(n)
}

// closeEverything closes all nodes, after the kernel has let go of the file system.
func (t *table) closeEverything(root *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		if n != root {
			n.close()
		}
	}
	clear(t.byID)
	clear(t.byKey)
	clear(t.byIno)
}

func closeAll(nodes []*node) {
	for _, n := range nodes {
		n.close()
	}
}
