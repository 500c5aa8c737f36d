package union

import (
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// An open file is in one of two modes. Passed through, the kernel reads, writes and maps the file of a layer by itself
// (FUSE_PASSTHROUGH, Linux 6.9), at the speed of that file system and with its page cache. Cached, it asks us, and keeps
// what it was told in a page cache of its own.
//
// All open files of a node are in the same mode, and passed through to the same file, or the kernel answers EIO
// (fs/fuse/iomode.c); so the first one decides. Which file may that be?
//
//   - The upper file: always. It stays the node's for as long as the node lives.
//   - A lower file, in a union that can be written: not by default. A descriptor that was opened before the copy-up would
//     go on reading the lower file, which databases do not survive. With passthrough=all it is so: see split.
//   - A lower file, in a union that cannot be written: always. Nothing can take its place in the node.
//
// The kernel opens the backing file with the flags of the user, and asks nobody whether they suit. That a file open for
// writing is never passed through to a lower file is decided in one place, startIO.

// passing says what files are passed through.
type passing int32

const (
	passNothing passing = iota
	passUpper
	passAll
)

// initialPassing is what the options of the union amount to.
func (fs *FS) initialPassing() passing {
	switch mode := fs.options().Passthrough; {
	case mode == layer.PassthroughOff:
		return passNothing
	case fs.override != "":
		return passNothing // a write clears capabilities that only we know to be some
	case mode == layer.PassthroughAll, fs.writable() != nil:
		return passAll
	default:
		return passUpper
	}
}

// refusedCapabilities are those of the kernel's that the union has no use for.
func (fs *FS) refusedCapabilities() uint64 {
	if fs.initialPassing() == passNothing {
		return fuse.CAP_PASSTHROUGH // nothing else may be stacked so high
	}
	return 0
}

// stackDepth is on how many file systems that stack, as union file systems do, a backing file may be. The more, the fewer
// may be stacked on this one (FILESYSTEM_MAX_STACK_DEPTH).
func (fs *FS) stackDepth() int {
	var layers []*layer.Layer
	if fs.stack.Upper != nil {
		layers = append(layers, fs.stack.Upper)
	}
	if fs.initialPassing() == passAll {
		layers = slices.Concat(layers, fs.stack.Lowers, fs.stack.Data)
	}
	for _, l := range layers {
		var st unix.Statfs_t
		if err := l.Root.Statfs(&st); err == nil && (st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.FUSE_SUPER_MAGIC) {
			return 2
		}
	}
	return 1
}

// fileIO is how the open files of a node are read and written, and what the kernel keeps of a symbolic link.
type fileIO struct {
	mu      sync.Mutex
	cached  int // open files whose data the kernel caches
	passed  int // open files that are passed through, to backing
	backing backing
	kept    cacheStamp // of what the kernel has in its cache, if it has anything
}

// backing is a file of a layer that the kernel knows by a number. It is kept while the node lives: to register it anew
// at every open would double what an open costs.
type backing struct {
	server *server
	id     int32 // 0: there is none
	upper  bool  // of the upper layer: it may be written
}

func (b *backing) close() {
	if b.id != 0 {
		b.server.closeBacking(b.id)
	}
	*b = backing{}
}

// io returns the state of the open files of n.
func (n *node) io() *fileIO {
	if io := n.fileIO.Load(); io != nil {
		return io
	}
	n.fileIO.CompareAndSwap(nil, new(fileIO))
	return n.fileIO.Load()
}

// isUpperData reports whether the data of n are of the upper layer.
func (n *node) isUpperData() bool { return n.upper.Load() && !n.meta.Load() }

// joinIO adds an open file for reading to those that are passed through, if the kernel knows the file already: then
// nobody has to open it.
func (fs *FS) joinIO(n *node, out *fuse.OpenOut) bool {
	io := n.io()
	io.mu.Lock()
	defer io.mu.Unlock()
	if io.backing.id == 0 || io.cached > 0 || io.passed == 0 && io.backing.upper != n.isUpperData() || n.filling() != nil {
		return false
	}
	io.pass(out)
	return true
}

// startIO decides how f, whose data are described by now, is read and written, and says so in out. ESTALE if it cannot be:
// f is open for writing, and others that are open are passed through to the lower file.
func (fs *FS) startIO(f *file, now cacheStamp, out *fuse.OpenOut) error {
	n := f.node
	io := n.io()
	io.mu.Lock()
	defer io.mu.Unlock()
	writes := f.accmode != unix.O_RDONLY
	switch {
	case io.passed > 0 && writes && !io.backing.upper:
		return unix.ESTALE
	case io.passed > 0, io.cached == 0 && fs.register(io, f):
		f.passed = true
		io.pass(out)
	default:
		io.cached++
		if io.keeps(fs, now) {
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
	}
	if f.passed && writes {
		n.unseen.Add(1)
	}
	return nil
}

func (io *fileIO) pass(out *fuse.OpenOut) {
	io.passed++
	io.kept = cacheStamp{} // the cache does not see what is written from now on
	out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
	out.BackingID = io.backing.id
}

// endIO takes back startIO or joinIO. The kernel has let go of the file before it said so (fuse_file_io_release).
func (f *file) endIO() {
	io := f.node.io()
	io.mu.Lock()
	defer io.mu.Unlock()
	if !f.passed {
		io.cached--
		return
	}
	io.passed--
	if f.accmode != unix.O_RDONLY {
		f.node.unseen.Add(-1)
	}
}

// register makes the kernel know the file that f has open, which no open file is passed through to yet. It reports
// whether it does.
//
// Precondition: io.mu is held.
func (fs *FS) register(io *fileIO, f *file) bool {
	upper := f.upper.Load()
	mode := passing(fs.passing.Load())
	if fs.kernel == nil || f.fd < 0 || mode == passNothing || mode == passUpper && !upper || f.accmode != unix.O_RDONLY && !upper {
		return false
	}
	if io.backing.id != 0 && io.backing.upper == upper {
		return true
	}
	io.backing.close() // of the lower file; it was copied up
	id, err := fs.kernel.openBacking(f.fd)
	switch err {
	case nil:
		io.backing = backing{server: fs.kernel, id: id, upper: upper}
		return true
	case unix.EPERM, unix.ENOTTY:
		fs.stopPassing("the kernel does not allow it: it needs Linux 6.9, and root outside of a user namespace")
	case unix.ELOOP:
		fs.stopPassing("a layer is on a union that is on a union itself")
	}
	return false // not a regular file, or too many open files
}

// stopPassing falls back to the cached mode for the whole mount.
func (fs *FS) stopPassing(why string) {
	if fs.passing.Swap(int32(passNothing)) != int32(passNothing) {
		fs.log.Printf("files are read and written through this process, not passed through: %s", why)
	}
}

// split gives n, which is of the upper layer by now but has open files that are passed through to the lower one, a
// successor for those who change its data: n loses its name, and whoever looks it up gets another node. The caller
// answers ESTALE, on which the kernel looks up again (retry_estale).
func (fs *FS) split(n *node) {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent, name := n.place()
	parent.dir.entriesMu.Lock()
	defer parent.dir.entriesMu.Unlock()
	if n.isDead() || fs.pinBefore(n, parent, name) != nil {
		return // it will be tried again
	}
	fs.lostName(n, true)
	n.unseen.Add(1) // for good: what is changed through its successor
	fs.kernel.forgetAttributes(n.id)
	fs.kernel.soon(func() { fs.kernel.forgetName(parent.id, name) })
}

// passedBelow reports whether files are open that are passed through to a lower file.
func (n *node) passedBelow() bool {
	io := n.fileIO.Load()
	if io == nil {
		return false
	}
	io.mu.Lock()
	defer io.mu.Unlock()
	return io.passed > 0 && !io.backing.upper
}

// cacheStamp says what data the kernel has cached. Of an upper file the layer is enough: all changes go through the kernel.
// A lower file may be changed by somebody else; its size and times tell.
type cacheStamp struct {
	valid        bool // else the data are like no others
	upper        bool
	mtime, ctime unix.Timespec
	size         int64
}

// stampOf describes the data that f, which was opened, would read now.
func stampOf(f *file) cacheStamp {
	if f.upper.Load() {
		return cacheStamp{valid: true, upper: true}
	}
	var st unix.Stat_t
	if f.fd < 0 || layer.RefFD(f.fd).Stat(&st) != nil {
		return cacheStamp{}
	}
	return lowerStamp(&st)
}

// lowerStamp describes the data of a lower file, if its times are old enough: of two changes in one tick of the clock they
// do not show the second.
func lowerStamp(st *unix.Stat_t) cacheStamp {
	const tick = 20 * time.Millisecond
	if time.Since(time.Unix(st.Ctim.Unix())) < tick {
		return cacheStamp{}
	}
	return cacheStamp{valid: true, mtime: st.Mtim, ctime: st.Ctim, size: st.Size}
}

// keeps reports whether what the kernel has cached of the node is what somebody would read who opened it now, and notes
// that it is what the kernel will have.
//
// Precondition: io.mu is held.
func (io *fileIO) keeps(fs *FS, now cacheStamp) bool {
	if fs.shared.Load() {
		now = cacheStamp{}
	}
	before := io.kept
	io.kept = now
	return now.valid && before == now
}

// stamp notes what the kernel is given to keep.
func (io *fileIO) stamp(now cacheStamp) {
	io.mu.Lock()
	defer io.mu.Unlock()
	io.kept = now
}

// isStamp reports whether that is what is there now.
func (io *fileIO) isStamp(now cacheStamp) bool {
	io.mu.Lock()
	defer io.mu.Unlock()
	return now.valid && io.kept == now
}

// The ioctls of linux/fuse.h about backing files.
const (
	fuseDevIocBackingOpen  = 0x4010e501
	fuseDevIocBackingClose = 0x4004e502
)

// backingMap is struct fuse_backing_map.
type backingMap struct {
	fd    int32
	flags uint32
	_     uint64
}

// openBacking makes the kernel know the file that fd has open, and returns the number to call it by. It keeps the file
// after fd is closed.
func (s *server) openBacking(fd int) (int32, error) {
	arg := backingMap{fd: int32(fd)}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.conn.FD()), fuseDevIocBackingOpen, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return 0, errno
	}
	return int32(id), nil
}

func (s *server) closeBacking(id int32) {
	// It fails only for a number that is none.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.conn.FD()), fuseDevIocBackingClose, uintptr(unsafe.Pointer(&id)))
}
