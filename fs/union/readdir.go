package union

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Directories are not opened: OPENDIR is answered ENOSYS, and the kernel asks no more (FUSE_NO_OPENDIR_SUPPORT, Linux 5.1).
// It keeps the names that it was given, for all who list the directory, as long as it is not told to forget them. What it
// has not kept it asks for by the offset of an entry, of nobody in particular: maybe long after the directory has changed,
// maybe from the middle on. So the offset of an entry does not depend on the other entries: see [cookies].

// OpenDir implements fuse.RawFileSystem.
func (fs *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// ReadDir implements fuse.RawFileSystem.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	_, entries, err := fs.entries(in)
	if err != nil {
		return fs.status("readdir", "", err)
	}
	for _, e := range entries {
		if !out.AddDirEntry(e.forKernel()) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus implements fuse.RawFileSystem: entries with their attributes, each of which counts as a lookup.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, entries, err := fs.entries(in)
	if err != nil {
		return fs.status("readdirplus", "", err)
	}
	for _, e := range entries {
		// The entry goes in before it is looked up: a lookup must not be counted for what does not fit.
		slot := out.AddDirLookupEntry(e.forKernel())
		if slot == nil {
			break
		}
		if e.off >= firstOff { // "." and ".." are not looked up
			fs.plus(n, e.name, slot, out)
		}
	}
	return fuse.OK
}

func (e *dirent) forKernel() fuse.DirEntry {
	return fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: uint32(e.typ) << 12, Off: e.off}
}

// plus fills in the attributes of an entry. One that is gone by now keeps node id 0: the kernel looks it up itself.
func (fs *FS) plus(parent *node, name string, slot *fuse.EntryOut, out *fuse.DirEntryList) {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.RLock()
	defer parent.dir.entriesMu.RUnlock()
	n, st, err := fs.lookupLocked(parent, name)
	if err != nil {
		return
	}
	fs.fillEntry(parent, n, &st, slot)
	out.FixMode(st.Mode)
}

// entries returns the entries of a directory from an offset on. They are read anew when reading begins at the start, as
// after rewinddir(3).
func (fs *FS) entries(in *fuse.ReadIn) (*node, []dirent, error) {
	n := fs.node(in.NodeId)
	if n == nil || !n.isDir() {
		return nil, nil, unix.ESTALE
	}
	var list []dirent
	if in.Offset != 0 {
		list = fs.listings.get(n.id)
	}
	if list == nil {
		var err error
		if list, err = fs.read(n); err != nil {
			return nil, nil, err
		}
		fs.listings.put(n.id, list)
	}
	i, found := slices.BinarySearchFunc(list, in.Offset, func(e dirent, off uint64) int { return cmp.Compare(e.off, off) })
	if found {
		i++
	}
	if i == len(list) {
		fs.ended(n)
	}
	return n, list[i:], nil
}

// ended is what follows when somebody has read all of a directory. The kernel has all of its names now, and is to forget
// them at once if it could not be told of a change.
func (fs *FS) ended(n *node) {
	fs.listings.drop(n.id)
	if fs.kernel != nil && !fs.remembersNames(n) {
		fs.kernel.forgetListing(n.id)
	}
}

// listings are what directories that are being read showed when somebody began. Who reads on finds the same; it is dropped
// when somebody has come to the end, or nobody has read on for a while.
type listings struct {
	mu    sync.Mutex
	of    map[uint64]*snapshot // by node id
	sweep *time.Timer          // nil while there are none
}

// snapshot is what one directory showed, by offsets, "." and ".." first.
type snapshot struct {
	entries []dirent
	used    time.Time
}

// listingTime is how long a listing is kept that nobody reads on in. It can be made again.
const listingTime = 10 * time.Second

func (l *listings) get(id uint64) []dirent {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.of[id]
	if at == nil {
		return nil
	}
	at.used = time.Now()
	return at.entries
}

func (l *listings) put(id uint64, entries []dirent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[uint64]*snapshot{}
	}
	l.of[id] = &snapshot{entries: entries, used: time.Now()}
	if l.sweep == nil {
		l.sweep = time.AfterFunc(listingTime, l.dropOld)
	}
}

func (l *listings) drop(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, id)
}

// dropOld drops those that nobody reads on in.
func (l *listings) dropOld() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.of {
		if time.Since(at.used) > listingTime {
			delete(l.of, id)
		}
	}
	if len(l.of) == 0 {
		l.of, l.sweep = nil, nil // a map does not shrink
		return
	}
	l.sweep.Reset(listingTime)
}

// close drops all. Nobody reads any more.
func (l *listings) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sweep != nil {
		l.sweep.Stop()
	}
	l.of = nil
}

// read returns what a directory shows, by offsets.
func (fs *FS) read(n *node) ([]dirent, error) {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent, _ := n.place()
	if parent == nil {
		parent = n
	}
	entries := []dirent{
		{name: ".", ino: n.ino.Load(), typ: unix.DT_DIR, off: 1},
		{name: "..", ino: parent.ino.Load(), typ: unix.DT_DIR, off: 2},
	}
	n.dir.entriesMu.RLock()
	defer n.dir.entriesMu.RUnlock()
	if n.isDead() {
		return entries, nil
	}
	list, err := fs.listLocked(n, true)
	cookies(list)
	return append(entries, list...), err
}

// firstOff is the smallest offset of an entry but "." and "..".
const firstOff = 3

// cookies gives the entries their offsets, and sorts them by these: a hash of the name, so that it stays the same whatever
// becomes of the rest, as in ext4. It is positive as an off_t, of 63 bits: two names share one in no directory that fits
// on a disk, and if they do, the second one gets the next.
func cookies(entries []dirent) {
	for i := range entries {
		const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
		hash := uint64(offset)
		for _, c := range []byte(entries[i].name) {
			hash = (hash ^ uint64(c)) * prime
		}
		entries[i].off = max(hash>>1, firstOff)
	}
	slices.SortFunc(entries, func(a, b dirent) int {
		return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.name, b.name))
	})
	for i := 1; i < len(entries); i++ {
		entries[i].off = max(entries[i].off, entries[i-1].off+1)
	}
}

// FsyncDir implements fuse.RawFileSystem.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !fs.syncs() {
		return fuse.ENOSYS // success, and the kernel does not ask again
	}
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	upper := n.dir.upper.Load()
	if upper == nil {
		return fuse.OK
	}
	fd, err := upper.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return fs.nodeStatus("fsyncdir", n, err)
	}
	defer unix.Close(fd)
	return fs.nodeStatus("fsyncdir", n, sys.Fsync(fd))
}
