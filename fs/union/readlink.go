package union

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// The kernel keeps the target of a symbolic link for as long as it knows the node (FUSE_CACHE_SYMLINKS), which is right: no
// link is ever changed. But somebody may replace a lower one on the host, by another that gets its inode number and so
// would be the same node. If that is watched the kernel is told; in any case a lookup finds other times, and makes a node
// of its own for the new link.

// Readlink implements fuse.RawFileSystem.
func (fs *FS) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	n := fs.node(header.NodeId)
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	var target string
	err := n.use(func(r layer.Ref) (err error) {
		if fs.foreign(n) && fs.remembersTargets() { // before it is read, so that what is kept is never older than it seems
			var st unix.Stat_t
			if err := r.Stat(&st); err != nil {
				return err
			}
			n.io().stamp(lowerStamp(&st))
		}
		target, err = r.Readlink()
		return err
	})
	return []byte(target), fs.nodeStatus("readlink", n, err)
}

// foreign reports whether others than the union may replace the object of n.
func (fs *FS) foreign(n *node) bool { return !n.upper.Load() || fs.shared.Load() }

// replaced reports whether n, a node that a lookup has found for the object that st describes, is of a link that was there
// before it.
func (fs *FS) replaced(n *node, st *unix.Stat_t) bool {
	io := n.fileIO.Load()
	return n.kind == unix.S_IFLNK && io != nil && fs.foreign(n) && !io.isStamp(lowerStamp(st))
}
