package union

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/union/transport"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// file is an open regular file. It follows its node from the lower to the upper layer.
//
// A lower file is opened when it is first read: most are in the kernel's cache, and never are.
type file struct {
	node    *node
	accmode int   // O_RDONLY, O_WRONLY or O_RDWR
	passed  bool  // whether it is passed through: see passthrough.go
	lower   inode // the lower file that it is to be; none if that does not matter

	mu    sync.RWMutex // see the package comment
	fd    int          // guarded by mu; -1 if it was not needed yet
	upper atomic.Bool  // whether fd is of the upper file; set under mu, never cleared
}

// backingFlags are the flags, of those that a user opened the file with, that matter to the file of the layer. The
// kernel's FUSE client does the appending, and reads and writes for O_DIRECT through the daemon's buffers.
func backingFlags(flags uint32) int {
	return int(flags) & (unix.O_ACCMODE | unix.O_TRUNC)
}

// opensNothing reports whether files are opened without a request (FUSE_NO_OPEN_SUPPORT), so that to open, read and close
// what the kernel has in its cache costs what it costs on a local file system. That is only so where there is nothing to be
// found out: nobody writes, neither here nor on the host, and the kernel is given no file to read by itself.
func (fs *FS) opensNothing() bool {
	return fs.stack.Upper == nil && fs.stack.Spec.Options.LowerImmutable && passing(fs.passing.Load()) == passNothing
}

// Open implements fuse.RawFileSystem. To open for writing is to copy up (ovl_open_maybe_copy_up).
func (fs *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if fs.opensNothing() {
		return fuse.ENOSYS // from now on the kernel does not ask
	}
	n := fs.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	flags := backingFlags(in.Flags)
	if flags != unix.O_RDONLY {
		if err := fs.mayOpen(n, in.Flags); err != nil {
			return fs.nodeStatus("open", n, err)
		}
		if err := fs.ensureUpper(n, copyUpFor{data: true, lazy: true, truncate: flags&unix.O_TRUNC != 0, caller: by(&in.InHeader, cancel)}); err != nil {
			return fs.nodeStatus("open", n, err)
		}
	}
	if flags == unix.O_RDONLY && fs.joinIO(n, out) {
		fs.replyOpen(&file{node: n, fd: -1, passed: true}, out)
		return fuse.OK
	}
	if err := fs.findDeferred(n); err != nil {
		return fs.nodeStatus("open", n, err)
	}
	f, now, err := fs.openLate(n, flags)
	if f == nil && err == nil {
		f, now, err = fs.openNow(n, in)
	}
	if err != nil {
		return fs.nodeStatus("open", n, err)
	}
	if err := fs.startIO(f, now, out); err != nil {
		f.close()
		fs.split(n)
		return fs.nodeStatus("open", n, err)
	}
	if n.unseen.Load() > 0 && fs.kernel != nil { // what it remembers of the times is not true for long
		fs.kernel.forgetAttributes(n.id)
	}
	fs.replyOpen(f, out)
	return fuse.OK
}

// openLate returns an open file of n that opens nothing before it is read, and what its data are now. It returns nil for
// a file that has to be opened at once: since it is of the upper layer, or the kernel is to be given it, or that may fail
// in other ways than that the file is gone.
func (fs *FS) openLate(n *node, flags int) (f *file, now cacheStamp, err error) {
	if flags != unix.O_RDONLY || n.isUpperData() || n.filling() != nil || passing(fs.passing.Load()) == passAll {
		return nil, now, nil
	}
	var st unix.Stat_t
	local := false
	err = n.use(func(r layer.Ref) error {
		local = fs.layerOf(n).Local
		if n.meta.Load() {
			r = layer.RefFD(int(n.data))
		}
		return r.Stat(&st)
	})
	if err != nil {
		return nil, now, err
	}
	const readable = unix.S_IRUSR | unix.S_IRGRP | unix.S_IROTH
	if !(local && fs.stack.Privileged) && st.Mode&readable != readable {
		return nil, now, nil
	}
	f = &file{node: n, fd: -1}
	if local { // others may number their files anew at any time
		f.lower = inode{st.Dev, st.Ino}
		if !n.meta.Load() && !fs.nodes.stands(n, &st) {
			return nil, now, unix.ESTALE // another file is in its place by now: the kernel's client looks it up again
		}
	}
	return f, lowerStamp(&st), nil
}

// openNow opens n for a request, and returns what its data are now.
func (fs *FS) openNow(n *node, in *fuse.OpenIn) (*file, cacheStamp, error) {
	flags := backingFlags(in.Flags)
	fd, upper, err := openNode(n, flags)
	if err == unix.EPERM && in.Flags&unix.O_APPEND != 0 { // chattr +a: it can be opened in no other way
		fd, upper, err = openNode(n, flags|unix.O_APPEND)
	}
	if err != nil {
		return nil, cacheStamp{}, err
	}
	if flags&unix.O_TRUNC != 0 {
		err = fs.dropCapabilities(layer.RefFD(fd))
		if err == nil && in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
			err = fs.dropPrivileges(layer.RefFD(fd), &in.InHeader)
		}
		if err != nil {
			unix.Close(fd)
			return nil, cacheStamp{}, err
		}
	}
	f := newFile(n, fd, upper, flags)
	return f, stampOf(f), nil
}

// newFile takes over fd, an open file of n.
func newFile(n *node, fd int, upper bool, flags int) *file {
	f := &file{node: n, fd: fd, accmode: flags & unix.O_ACCMODE}
	f.upper.Store(upper)
	return f
}

func (f *file) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
}

func (fs *FS) replyOpen(f *file, out *fuse.OpenOut) {
	out.Fh = fs.handles.addFile(f)
	out.OpenFlags |= fuse.FOPEN_NOFLUSH // a layer is a local file system: close reports nothing
}

// inode is an object of a file system.
type inode struct{ dev, ino uint64 }

// openNode opens the data of a node, and tells whether they are of the upper layer: then they stay where they are.
func openNode(n *node, flags int) (fd int, upper bool, err error) {
	if n.filling() != nil && flags&unix.O_TRUNC == 0 {
		return -1, false, nil // its data are not in one file: see lazy.go
	}
	err = n.use(func(r layer.Ref) (err error) {
		upper = n.upper.Load() && !n.meta.Load()
		if n.meta.Load() && flags == unix.O_RDONLY {
			r = layer.RefFD(int(n.data))
		}
		fd, err = r.Open(flags | unix.O_NONBLOCK) // a FIFO or device that took the place of the file must not hang us
		return err
	})
	return fd, upper, err
}

// with calls f with a descriptor of what the node is now.
func (f *file) with(do func(fd int) error) error {
	if l := f.node.filling(); l != nil { // what is done with a descriptor needs the whole file
		if err := l.finish(); err != nil {
			return err
		}
	}
	f.mu.RLock()
	if f.fd < 0 || !f.upper.Load() && f.node.isUpperData() {
		f.mu.RUnlock()
		if err := f.follow(); err != nil {
			return err
		}
		f.mu.RLock()
	}
	defer f.mu.RUnlock()
	return do(f.fd)
}

// follow opens the file of the node, for the first time or after the data of the node were copied up. ENOENT if somebody
// has removed the lower file on the host before it was read, or put another one in its place.
func (f *file) follow() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd >= 0 && (f.upper.Load() || !f.node.isUpperData()) { // somebody else was faster
		return nil
	}
	fd, upper, err := openNode(f.node, f.accmode)
	if err != nil {
		return err
	}
	if f.lower != (inode{}) && !upper && fd >= 0 {
		var st unix.Stat_t
		if err := layer.RefFD(fd).Stat(&st); err != nil || f.lower != (inode{st.Dev, st.Ino}) {
			unix.Close(fd)
			return unix.ENOENT
		}
	}
	f.close()
	f.fd = fd
	f.upper.Store(upper)
	return nil
}

// opened returns the open file of a request; the caller calls done when it needs it no more. Where files are opened without a
// request, it is one that is opened for this request alone.
func (fs *FS) opened(id, fh uint64) (f *file, done func(), err error) {
	if f := fs.handles.file(fh); f != nil {
		return f, func() {}, nil
	}
	if !fs.opensNothing() {
		return nil, nil, unix.EBADF
	}
	n := fs.node(id)
	if n == nil {
		return nil, nil, unix.ESTALE
	}
	if err := fs.findDeferred(n); err != nil {
		return nil, nil, err
	}
	f = &file{node: n, fd: -1}
	return f, f.close, nil
}

// Flush implements fuse.RawFileSystem. It comes only for what was opened without a request: see replyOpen.
func (fs *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Release implements fuse.RawFileSystem.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { fs.handles.removeFile(in.Fh) }

// Read implements fuse.RawFileSystem.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, status := fs.readFile(in, buf)
	if status != fuse.OK {
		return nil, status
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// readFile is Read, and returns how many bytes there are in buf.
func (fs *FS) readFile(in *fuse.ReadIn, buf []byte) (n int, _ fuse.Status) {
	f, done, err := fs.opened(in.NodeId, in.Fh)
	if err != nil {
		return 0, fs.status("read", "", err)
	}
	defer done()
	if l := f.node.filling(); l != nil {
		n, err = l.ReadAt(buf, int64(in.Offset))
	} else {
		err = f.with(func(fd int) (err error) {
			n, err = sys.PreadAll(fd, buf, int64(in.Offset))
			return err
		})
	}
	return n, fs.nodeStatus("read", f.node, err)
}

// Write implements fuse.RawFileSystem.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f := fs.handles.file(in.Fh)
	if f == nil {
		return 0, fuse.EBADF
	}
	write := func(fd int) error { return sys.PwriteAll(fd, data, int64(in.Offset)) }
	with := f.with
	if l := f.node.filling(); l != nil {
		write = func(int) error { return l.WriteAt(data, int64(in.Offset)) }
		with = l.with
	}
	err := with(func(fd int) error {
		if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
			if err := fs.dropPrivileges(layer.RefFD(fd), &in.InHeader); err != nil {
				return err
			}
		}
		if err := fs.dropCapabilities(layer.RefFD(fd)); err != nil {
			return err
		}
		return write(fd)
	})
	if err != nil {
		return 0, fs.nodeStatus("write", f.node, err)
	}
	return uint32(len(data)), fuse.OK
}

// Fsync implements fuse.RawFileSystem.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if !fs.syncs() {
		return fuse.ENOSYS // success, and the kernel does not ask again
	}
	f, done, err := fs.opened(in.NodeId, in.Fh)
	if err != nil {
		return fs.status("fsync", "", err)
	}
	defer done()
	if !f.node.upper.Load() {
		return fuse.OK
	}
	with := f.with
	if l := f.node.filling(); l != nil { // what is not there yet is in the lower file, as durable as that is
		with = l.with
	}
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	return fs.nodeStatus("fsync", f.node, with(func(fd int) error {
		if in.FsyncFlags&dataOnly != 0 {
			return sys.Fdatasync(fd)
		}
		return sys.Fsync(fd)
	}))
}

// Fallocate implements fuse.RawFileSystem.
func (fs *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f := fs.handles.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	if err := fs.unprotected(f.node, cow.Immutable); err != nil { // since it was opened
		return fs.nodeStatus("fallocate", f.node, err)
	}
	return fs.nodeStatus("fallocate", f.node, f.with(func(fd int) error {
		if err := fs.dropAsUser(&in.InHeader, fd); err != nil {
			return err
		}
		return sys.Retry(func() error { return unix.Fallocate(fd, in.Mode, int64(in.Offset), int64(in.Length)) })
	}))
}

// dropAsUser clears set-user-id and set-group-id of a file that the caller changes with a request that does not say
// whether it should be done (file_remove_privs).
func (fs *FS) dropAsUser(caller *fuse.InHeader, fd int) error {
	r := layer.RefFD(fd)
	var st unix.Stat_t
	if err := fs.statUpper(r, &st); err != nil {
		return err
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 || capable(caller, unix.CAP_FSETID) {
		return nil
	}
	return fs.dropPrivileges(r, caller)
}

// Lseek implements fuse.RawFileSystem. The kernel asks only for SEEK_DATA and SEEK_HOLE.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	f, done, err := fs.opened(in.NodeId, in.Fh)
	if err != nil {
		return fs.status("lseek", "", err)
	}
	defer done()
	return fs.nodeStatus("lseek", f.node, f.with(func(fd int) error {
		off, err := unix.Seek(fd, int64(in.Offset), int(in.Whence))
		out.Offset = uint64(off)
		return err
	}))
}

// CopyFileRange implements fuse.RawFileSystem.
func (fs *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, to := fs.handles.file(in.FhIn), fs.handles.file(in.FhOut)
	if from == nil || to == nil {
		return 0, fuse.EBADF
	}
	if err := fs.unprotected(to.node, cow.Immutable); err != nil {
		return 0, fs.nodeStatus("copy_file_range", to.node, err)
	}
	var copied int
	err := to.with(func(out int) error {
		if err := fs.dropAsUser(&in.InHeader, out); err != nil {
			return err
		}
		return from.with(func(src int) (err error) {
			offIn, offOut := int64(in.OffIn), int64(in.OffOut)
			copied, err = unix.CopyFileRange(src, &offIn, out, &offOut, int(min(in.Len, transport.MaxData)), int(in.Flags))
			return err
		})
	})
	return uint32(copied), fs.nodeStatus("copy_file_range", to.node, err)
}
