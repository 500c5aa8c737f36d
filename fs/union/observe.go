package union

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/union/transport"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Observer is told what a union does, by whoever counts it. Its types are plain, so that it can be implemented without
// knowing this package. But for Opened, FillFailed and LowerChanged, its methods are called while somebody waits for the answer to
// a request, and from many threads at once: they must not block.
type Observer interface {
	// Opened comes first. leftovers is how many objects of an earlier mount were found in the work directory and
	// removed. usage tells how many objects the kernel holds, how many files are open, how many lower directories are
	// watched, and how many bytes of lazily copied files are still to be copied; it may be called at any time, also
	// after the union has ended.
	Opened(leftovers int, usage func() (nodes, files, watches int, uncopied int64))

	// Begin and End enclose a request, from when it was read to when its answer is ready. op is the FUSE
	// operation, an index into [Operations] or beyond; errno is 0 for success.
	Begin(op uint32)
	End(op, errno uint32, took time.Duration)

	// Read and Wrote tell of data that went through this process: from a file that was opened with O_DIRECT, or from
	// or to the kernel's page cache.
	Read(bytes int, direct bool)
	Wrote(bytes int, direct bool)

	// Lookup is told of every name that the kernel asked for: whether it is there, whether a whiteout hides it, and
	// how many layers were asked.
	Lookup(found, hidden bool, layers int)

	// CopyUpBegin and CopyUpEnd enclose the copy-up of one object; CopiedUp says how and how long its copy was made,
	// once that has succeeded. bytes is the size of the file.
	CopyUpBegin()
	CopyUpEnd(ok bool)
	CopiedUp(method string, bytes int64, took time.Duration)

	// FillFailed is told of every try to copy the rest of a lazily copied file that failed in the background.
	FillFailed()

	// LowerChanged is told of changes that others made in the lower layers, once the kernel was told.
	LowerChanged(changes int)

	// Whiteout and Opaque are told of every mark that was made.
	Whiteout()
	Opaque()

	// Fault is told of every failure that was answered with EIO because nothing better is known of it.
	Fault()
}

// Operations are the names of the FUSE operations by number (enum fuse_opcode); empty where there is none.
var Operations = []string{
	1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink",
	8: "mknod", 9: "mkdir", 10: "unlink", 11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write",
	17: "statfs", 18: "release",
	20: "fsync", 21: "setxattr", 22: "getxattr", 23: "listxattr", 24: "removexattr", 25: "flush", 26: "init",
	27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw",
	34: "access", 35: "create", 36: "interrupt", 37: "bmap", 38: "destroy", 39: "ioctl", 40: "poll",
	41: "notify_reply", 42: "batch_forget", 43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek",
	47: "copy_file_range", 48: "setupmapping", 49: "removemapping", 50: "syncfs", 51: "tmpfile", 52: "statx",
	53: "copy_file_range_64",
}

// The operations whose data is counted, and where their messages have what is needed (linux/fuse.h).
const (
	opRead, opWrite = 15, 16

	outHeaderSize = 16 // struct fuse_out_header
	openFlags     = 32 // in struct fuse_read_in and struct fuse_write_in: the flags that the file was opened with
)

// epoch makes for a cheap clock: time.Since reads the monotonic clock alone.
var epoch = time.Now()

// observed answers a request and tells the observer.
func (s *server) observed(m *transport.Message) int {
	op := m.Op()
	direct := false
	if op == opRead || op == opWrite {
		direct = binary.NativeEndian.Uint32(m.In[1][openFlags:])&unix.O_DIRECT != 0 // the answer may take its place
	}
	s.observer.Begin(op)
	begin := time.Since(epoch)
	n := s.answer(m)
	took := time.Since(epoch) - begin
	var errno uint32
	if n > 0 {
		errno = uint32(m.Errno())
	}
	s.observer.End(op, errno, took)
	switch {
	case errno != 0:
	case op == opRead:
		s.observer.Read(n-outHeaderSize, direct)
	case op == opWrite:
		s.observer.Wrote(int(binary.NativeEndian.Uint32(m.Out[1])), direct)
	}
	return n
}

// observe makes obs hear of all that the union does.
func (fs *FS) observe(obs Observer) {
	fs.observer = obs
	leftovers := 0
	if fs.copier != nil {
		leftovers = fs.stack.Work.Leftovers()
		fs.copier.Observe = func(method sys.CopyMethod, bytes int64, took time.Duration) {
			obs.CopiedUp(string(method), bytes, took)
		}
		fs.newWhiteouts()
	}
	obs.Opened(leftovers, fs.usage)
}

// usage counts what the kernel and its users hold, and what the filler has before it.
func (fs *FS) usage() (nodes, files, watches int, uncopied int64) {
	fs.nodes.mu.Lock()
	nodes = len(fs.nodes.byID)
	fs.nodes.mu.Unlock()
	fs.handles.mu.RLock()
	defer fs.handles.mu.RUnlock()
	return nodes, len(fs.handles.files), fs.watcher.count(), fs.filler.left()
}

// lookedUp tells the observer of a lookup by the kernel.
func (fs *FS) lookedUp(e *entry) {
	if fs.observer != nil {
		fs.observer.Lookup(e.exists(), e.where == hidden || e.where == hiddenBelow, e.probed)
	}
}

// setOpaque makes an upper directory hide what is below it.
func (fs *FS) setOpaque(dir layer.Ref) error {
	err := whiteout.SetOpaque(dir, fs.stack.Xattr, fs.options().AUFSMarks)
	if err == nil && fs.observer != nil {
		fs.observer.Opaque()
	}
	return err
}

// observeCopyUp tells the observer that a copy-up begins; the caller calls what it returns when it has ended.
func (fs *FS) observeCopyUp() (ended func(err error)) {
	if fs.observer == nil {
		return func(error) {}
	}
	fs.observer.CopyUpBegin()
	return func(err error) { fs.observer.CopyUpEnd(err == nil) }
}
