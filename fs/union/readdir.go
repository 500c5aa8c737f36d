package union

import (
	"cmp"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// dirHandle is an open directory: a snapshot of what it showed when it was last read from the start.
//
// Most of the time the kernel keeps the names that it was given, and reads them again without asking (FOPEN_CACHE_DIR).
// What it has dropped it asks for from the middle on, maybe of a handle that never read the beginning, or long after the
// directory has changed. So the offset of an entry does not depend on the other entries: see [cookies].
type dirHandle struct {
	node *node

	mu      sync.Mutex
	entries []dirent // by their offsets, "." and ".." first; nil before the first read
}

// OpenDir implements fuse.RawFileSystem.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.Fh = fs.handles.addDir(&dirHandle{node: n})
	if fs.remembersNames(n) {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) { fs.handles.removeDir(in.Fh) }

// ReadDir implements fuse.RawFileSystem.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	entries, err := fs.snapshot(in)
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
	entries, err := fs.snapshot(in)
	if err != nil {
		return fs.status("readdirplus", "", err)
	}
	n := fs.node(in.NodeId)
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
	parent.entriesMu.RLock()
	defer parent.entriesMu.RUnlock()
	n, st, err := fs.lookupLocked(parent, name)
	if err != nil {
		return
	}
	fs.fillEntry(parent, n, &st, slot)
	out.FixMode(st.Mode)
}

// snapshot returns the entries of an open directory from an offset on. They are read anew when reading begins at the start,
// as after rewinddir(3).
func (fs *FS) snapshot(in *fuse.ReadIn) ([]dirent, error) {
	h := fs.handles.dir(in.Fh)
	if h == nil {
		return nil, unix.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entries == nil || in.Offset == 0 {
		var err error
		if h.entries, err = fs.read(h.node); err != nil {
			h.entries = nil
			return nil, err
		}
	}
	i, found := slices.BinarySearchFunc(h.entries, in.Offset, func(e dirent, off uint64) int { return cmp.Compare(e.off, off) })
	if found {
		i++
	}
	return h.entries[i:], nil
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
	n.entriesMu.RLock()
	defer n.entriesMu.RUnlock()
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
