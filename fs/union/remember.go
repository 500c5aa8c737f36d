package union

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// How long the kernel may remember what it was told, without asking again. What is of the upper layer changes only
// through us, so the kernel knows of every change; what is of lower layers others change under a mounted union, and the
// kernel is told if that is watched. Where it is not, 50 ms for the name and 50 ms for the attributes keep what is shown
// less than 100 ms behind.
const (
	knownTTL = time.Hour
	briefTTL = 50 * time.Millisecond

	// floodTTL is for what cannot be taken back one by one once events were lost: names that are not there, if the
	// kernel cannot be told to forget all names.
	floodTTL = time.Second

	// bornTTL is for the attributes of a file that was just made and is open for writing: long enough for who looks at
	// what he has made, as tar and cp do, before he writes. What he writes the kernel sees, but through a mapping.
	bornTTL = time.Millisecond
)

// given is the time that the user or the circumstances prescribe for everything.
func (fs *FS) given() (ttl time.Duration, given bool) {
	if fs.leaving.Load() {
		return 0, true
	}
	if fs.shared.Load() {
		return briefTTL, true
	}
	remember := fs.options().Remember
	return remember.Duration, remember.Given
}

// hears reports whether the kernel is told of whatever others change in the lower layers of a directory.
func (fs *FS) hears(d *directory) bool {
	return len(d.lowers) == 0 || fs.stack.Spec.Options.LowerImmutable || d.watched.Load()
}

// nameTTL is for the name of n in parent, or for none, if parent is nil.
func (fs *FS) nameTTL(parent, n *node) time.Duration {
	if ttl, given := fs.given(); given {
		return ttl
	}
	if n.upper.Load() || parent == nil || fs.hears(parent.dir) {
		return knownTTL
	}
	return briefTTL
}

// negativeTTL is for a name that is not in parent.
func (fs *FS) negativeTTL(parent *node) time.Duration {
	ttl, given := fs.given()
	switch {
	case given:
		return ttl
	case !fs.hears(parent.dir):
		return briefTTL
	case parent.dir.watched.Load() && !fs.watcher.floods.Load():
		return floodTTL
	default:
		return knownTTL
	}
}

// remembersNames reports whether the kernel may keep what somebody has read of a directory, for those who read it next.
// With strictatime it is to be seen that they read it.
func (fs *FS) remembersNames(n *node) bool {
	return !fs.leaving.Load() && !fs.shared.Load() && fs.hears(n.dir) && fs.stack.Spec.Options.Atime != layer.AtimeAlways
}

// remembersTargets reports whether the kernel may keep the targets of symbolic links: see [FS.Readlink].
func (fs *FS) remembersTargets() bool { return fs.stack.Spec.Options.Atime != layer.AtimeAlways }

// attrTTL is for the attributes of n, whose topmost object has the given number of names.
func (fs *FS) attrTTL(n *node, links uint32) time.Duration {
	if n.unseen.Load() > 0 {
		return 0 // a write through a mapping is seen by nobody, and changes the times
	}
	if ttl, given := fs.given(); given {
		return ttl
	}
	if n.upper.Load() || fs.stack.Spec.Options.LowerImmutable || fs.heard(n, links) {
		return knownTTL
	}
	return briefTTL
}

// bornAttrTTL is attrTTL for a file that was just made.
func (fs *FS) bornAttrTTL(n *node, links uint32) time.Duration {
	if _, given := fs.given(); !given && n.unseen.Load() > 0 {
		return bornTTL
	}
	return fs.attrTTL(n, links)
}

// heard reports whether the kernel is told of whatever others change in n, an object of a lower layer: its attributes,
// and its data, but through a mapping.
func (fs *FS) heard(n *node, links uint32) bool {
	if n.isDir() {
		return n.dir.watched.Load()
	}
	parent, _ := n.place()
	return links == 1 && n.index == nil && !n.meta.Load() && parent.dir.watched.Load()
}

// fillEntry answers a request that looks up or makes a name in parent.
func (fs *FS) fillEntry(parent, n *node, st *unix.Stat_t, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.id, fs.generation
	out.SetEntryTimeout(fs.nameTTL(parent, n))
	if n.index != nil {
		out.SetEntryTimeout(0) // see index.go
	}
	out.SetAttrTimeout(fs.attrTTL(n, uint32(st.Nlink)))
	fs.fillAttr(n, st, &out.Attr)
}
