package union

import (
	"context"
	"errors"
	"log"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// FS is one mounted union. It answers the requests of the kernel's FUSE client; every method that fuse.RawFileSystem
// names may be called from many threads at once.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what a union has no use for

	stack     *layer.Stack
	copier    *cow.Copier
	origins   *cow.Origins
	index     *cow.Index // nil without index=on
	whiteouts *whiteout.Maker
	log       *log.Logger
	observer  Observer // nil: nobody counts

	shared  atomic.Bool     // somebody else writes to the upper layer: see handover.go
	leaving atomic.Bool     // another union is to take the place of this one, or has
	held    map[uint64]bool // inode numbers of directories that are open, once it has
	passing atomic.Int32    // a value of type passing

	owners          owners
	override        layer.Override   // of the upper layer
	lowerOverrides  []layer.Override // of each lower one; nil if there is none of the upper
	oneFileSystem   bool             // all layers are on one: inode numbers are unique as they are
	followRedirects bool

	generation uint64 // of all node ids; 0 without nfs_export=on: see export.go

	kernel  *server  // set before the first request; nil in tests that have none
	watcher *watcher // nil if nothing is watched

	root     *node
	filler   filler
	nodes    *table
	handles  *handles
	listings listings
	renameMu sync.RWMutex // see the package comment
}

const rootID = fuse.FUSE_ROOT_ID

// newFS serves the stack, which stays the caller's. Before the first request the staging directory is to be prepared.
func newFS(stack *layer.Stack, logger *log.Logger) (*FS, error) {
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		stack:         stack,
		origins:       cow.OpenOrigins(stack),
		log:           logger,
		nodes:         newTable(),
		handles:       newHandles(),
		filler:        newFiller(),

		owners:          newOwners(stack.Spec.Options.FUSE.Owners),
		oneFileSystem:   stack.FileSystems() == 1,
		followRedirects: stack.Spec.Options.Redirects().Follows(stack.Xattr.User()),
	}
	if stack.Work != nil {
		fs.copier = &cow.Copier{Work: stack.Work, Xattr: stack.Xattr, Origin: fs.origins, Override: fs.options().OverrideStat.Attr()}
		fs.newWhiteouts()
	}
	if stack.Spec.Options.NFSExport {
		fs.startExport()
	}
	err := fs.findOverrides()
	if err == nil && fs.stack.Work != nil && fs.stack.Spec.Options.Indexes() { // without an upper layer it is of no use
		fs.index, err = cow.OpenIndex(fs.stack, fs.origins)
	}
	if err == nil {
		err = fs.openRoot()
	}
	if err != nil {
		fs.origins.Close()
		return nil, err
	}
	fs.nodes.shrunk = reclaim.start
	fs.passing.Store(int32(fs.initialPassing()))
	return fs, nil
}

// newWhiteouts begins with an empty staging directory.
func (fs *FS) newWhiteouts() {
	fs.whiteouts = whiteout.NewMaker(fs.stack.Work, fs.stack.Xattr)
	fs.whiteouts.AUFS = fs.options().AUFSMarks
	if fs.observer != nil {
		fs.whiteouts.Observe = fs.observer.Whiteout
	}
}

// openRoot makes the root node of the roots of the layers.
func (fs *FS) openRoot() error {
	d := &directory{}
	var tops []*layer.Dir
	if fs.stack.Upper != nil {
		d.upper.Store(fs.stack.Upper.Root)
		d.impure.Store(fs.hasMark(fs.stack.Upper.Root, fs.stack.Xattr.Impure))
		tops = append(tops, fs.stack.Upper.Root)
	}
	for _, l := range fs.stack.Lowers {
		d.lowers = append(d.lowers, l.Root)
		tops = append(tops, l.Root)
	}
	for i, dir := range tops {
		opacity, err := whiteout.OpacityOfRoot(dir, fs.stack.Xattr, fs.options().AUFSMarks)
		if err != nil {
			return err
		}
		dir.Marked = opacity == whiteout.Marked
		if opacity == whiteout.Opaque {
			d.lowers = d.lowers[:len(d.lowers)-(len(tops)-1-i)]
			break
		}
	}
	var st unix.Stat_t
	if err := tops[0].Self().Stat(&st); err != nil {
		return err
	}
	root := &node{id: rootID, kind: unix.S_IFDIR, pin: -1, dir: d, lookups: 1, keyed: true, key: keyOf(&st)}
	root.upper.Store(fs.stack.Upper != nil)
	root.ino.Store(fs.inodeNumber(nil, root, tops[0].Self(), &st))
	fs.nodes.byID[rootID] = root
	fs.nodes.byKey[root.key] = root
	fs.root = root
	return nil
}

// close releases everything but the stack. The kernel has let go of the file system.
func (fs *FS) close() {
	fs.watcher.stop()
	fs.filler.stop()
	fs.filler.ended.Wait()
	fs.handles.closeEverything()
	fs.listings.close()
	fs.nodes.closeEverything(fs.root)
	fs.origins.Close()
}

// String implements fuse.RawFileSystem.
func (fs *FS) String() string { return "unionfsd" }

func (fs *FS) node(id uint64) *node { return fs.nodes.get(id) }

// Forget implements fuse.RawFileSystem.
func (fs *FS) Forget(id, lookups uint64) { fs.nodes.forget(id, lookups) }

// options are those that the kernel's overlayfs has not.
func (fs *FS) options() *layer.FUSEOptions { return &fs.stack.Spec.Options.FUSE }

// acls reports whether the union has POSIX ACLs. Where owner and mode are not those of the file system, its ACLs would
// contradict them.
func (fs *FS) acls() bool {
	return !fs.options().NoACL && fs.options().OverrideStat == layer.OverrideOff
}

// syncs reports whether fsync is to reach the disk.
func (fs *FS) syncs() bool { return !fs.stack.Spec.Options.Volatile && !fs.options().NoFsync }

// writable returns EROFS in a union that nothing may be written to.
func (fs *FS) writable() error {
	if fs.stack.Upper == nil || fs.stack.Spec.Options.ReadOnly {
		return unix.EROFS
	}
	return nil
}

// status is the one place where errors become what the kernel is told. An error that carries no errno is a fault of
// ours: it is EIO for the user, and logged.
func (fs *FS) status(op, name string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		if errno == unix.ENOSYS { // would tell the kernel never to ask again
			return fuse.Status(unix.EOPNOTSUPP)
		}
		return fuse.Status(errno)
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	}
	fs.log.Printf("%s %q: %v", op, name, err)
	if fs.observer != nil {
		fs.observer.Fault()
	}
	return fuse.EIO
}

// nodeStatus is status for an operation on a node.
func (fs *FS) nodeStatus(op string, n *node, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	n.mu.RLock()
	name := n.name
	n.mu.RUnlock()
	return fs.status(op, name, err)
}
