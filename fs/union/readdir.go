package union

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// dirHandle is an open directory: a snapshot of what it showed when it was last read from the start. An offset is an
// index into it.
type dirHandle struct {
	node *node

	mu      sync.Mutex
	entries []dirent // "." and ".." first; nil before the first read
}

// OpenDir implements fuse.RawFileSystem.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.Fh = fs.handles.addDir(&dirHandle{node: n})
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
	for i := in.Offset; i < uint64(len(entries)); i++ {
		e := entries[i]
		if !out.AddDirEntry(fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: uint32(e.typ) << 12, Off: i + 1}) {
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
	for i := in.Offset; i < uint64(len(entries)); i++ {
		e := entries[i]
		// The entry goes in before it is looked up: a lookup must not be counted for what does not fit.
		slot := out.AddDirLookupEntry(fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: uint32(e.typ) << 12, Off: i + 1})
		if slot == nil {
			break
		}
		if i >= 2 { // "." and ".." are not looked up
			fs.plus(n, e.name, slot, out)
		}
	}
	return fuse.OK
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

// snapshot returns the entries of an open directory. They are read anew when reading begins at the start, as after
// rewinddir(3).
func (fs *FS) snapshot(in *fuse.ReadIn) ([]dirent, error) {
	h := fs.handles.dir(in.Fh)
	if h == nil {
		return nil, unix.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entries != nil && in.Offset != 0 {
		return h.entries, nil
	}
	n := h.node
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent, _ := n.place()
	if parent == nil {
		parent = n
	}
	h.entries = []dirent{
		{name: ".", ino: n.ino.Load(), typ: unix.DT_DIR},
		{name: "..", ino: parent.ino.Load(), typ: unix.DT_DIR},
	}
	n.entriesMu.RLock()
	defer n.entriesMu.RUnlock()
	if n.isDead() {
		return h.entries, nil
	}
	list, err := fs.listLocked(n, true)
	h.entries = append(h.entries, list...)
	return h.entries, err
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
