package union

import (
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// where says what the layers have of a name.
type where uint8

const (
	// absent: no layer has it. To create it, create it in the upper directory.
	absent where = iota

	// hidden: the upper directory has a whiteout. To create the name, replace the whiteout, and make a directory
	// opaque.
	hidden

	// hiddenBelow: a lower layer has a whiteout and none above it has the name, or the upper directory has an AUFS
	// mark, which is no entry of that name. As absent.
	hiddenBelow

	// inUpper: the topmost object is in the upper directory. To remove it, look below first.
	inUpper

	// inLower: the topmost object is in a lower directory. To change it, copy it up; to remove it, cover it.
	inLower
)

// entry is the verdict on one name of a directory.
type entry struct {
	where where
	st    unix.Stat_t // of the topmost object, if there is one
	dir   *layer.Dir  // the layer directory that has it
	below int         // index of the first lower directory of the parent that is below dir
	link  *lowerLink  // of a lower file that the index keeps, or would; st is of its copy if it has one

	probed int // how many layers were asked for the name
}

func (e *entry) exists() bool {
	switch e.where {
	case absent, hidden, hiddenBelow:
		return false
	default:
		return true
	}
}

func (e *entry) isDir() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// Lookup implements fuse.RawFileSystem.
func (fs *FS) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "." || name == ".." {
		return fs.lookupID(header.NodeId, name, out)
	}
	parent := fs.node(header.NodeId)
	if parent == nil {
		return fuse.Status(unix.ESTALE)
	}
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.RLock()
	defer parent.dir.entriesMu.RUnlock()

	n, st, err := fs.lookupLocked(parent, name)
	if err == unix.ENOENT {
		out.SetEntryTimeout(fs.negativeTTL(parent)) // node id 0: a negative entry that may be remembered
		return fuse.OK
	}
	if err != nil {
		return fs.status("lookup", name, err)
	}
	fs.fillEntry(parent, n, &st, out)
	return fuse.OK
}

// lookupLocked returns the node of a name, with one lookup of the kernel counted, and the attributes of its topmost
// object. ENOENT if no layer has it.
//
// Preconditions: FS.renameMu and parent.dir.entriesMu are held.
func (fs *FS) lookupLocked(parent *node, name string) (*node, unix.Stat_t, error) {
	e, err := fs.resolve(parent, name)
	if err != nil {
		return nil, e.st, err
	}
	fs.lookedUp(&e)
	if !e.exists() {
		return nil, e.st, unix.ENOENT
	}
	n, err := fs.nodeOf(parent, name, &e)
	if err == nil && n.meta.Load() {
		err = n.use(func(layer.Ref) error { return n.addBlocks(&e.st) })
	}
	return n, e.st, err
}

// nodeOf returns the node of an entry that exists, with one lookup of the kernel counted. Like ovl_get_inode.
//
// Preconditions: FS.renameMu and parent.dir.entriesMu are held; e is fs.resolve(parent, name).
func (fs *FS) nodeOf(parent *node, name string, e *entry) (*node, error) {
	k := entryKey(parent, name, e)
	switch n := fs.nodes.find(k, true); {
	case n == nil:
	case n.kind != e.st.Mode&unix.S_IFMT || fs.replaced(n, &e.st):
		// Somebody has deleted the file on the host, and its inode number was given to something else.
		fs.nodes.unkey(n)
		fs.nodes.forget(n.id, 1)
	case n.index != nil:
		fs.reached(n, parent, name, e)
		return n, nil
	default:
		if e.where == inLower {
			fs.follow(n, parent, name, e)
		}
		return n, nil
	}
	n := &node{kind: e.st.Mode & unix.S_IFMT, parent: parent, name: name, pin: -1}
	n.upper.Store(e.where == inUpper || e.link != nil && e.link.up)
	ref := e.dir.At(name)
	switch {
	case e.isDir():
		var err error
		if n.dir, n.redirect, err = fs.openDirectory(parent, name, e); err != nil {
			return nil, err
		}
	case e.where == inLower:
		n.in = e.dir
	}
	var err error
	if n.index, err = fs.indexOf(ref, e); err != nil {
		return nil, err
	}
	if err := fs.findData(parent, n, e); err != nil {
		return nil, err
	}
	if e.link != nil {
		n.origin = e.link.up
		n.ino.Store(fs.mapInode(e.dir.Layer(), e.link.st.Dev, e.link.st.Ino))
	} else {
		n.ino.Store(fs.inodeNumber(parent, n, ref, &e.st))
	}
	if n.upper.Load() {
		if err := fs.loadProtection(n); err != nil {
			return nil, err
		}
	}
	known := fs.nodes.add(n, k)
	if known == n && n.upper.Load() {
		if own := fs.mapInode(fs.layerOf(n), e.st.Dev, e.st.Ino); n.ino.Load() != own && !fs.nodes.borrow(n) {
			n.ino.Store(own)
		}
	}
	if known == n && n.isDir() && fs.watcher.add(n) && e.where == inLower {
		// What is known of it is from before the watch.
		if err := fs.statNode(n, &e.st); err != nil {
			fs.nodes.forget(n.id, 1)
			return nil, err
		}
	}
	return known, nil
}

// follow notes where a node of a lower layer is found now, if somebody renamed it on the host.
func (fs *FS) follow(n, parent *node, name string, e *entry) {
	n.mu.RLock()
	same := n.parent == parent && n.name == name && (n.isDir() || n.in == e.dir)
	n.mu.RUnlock()
	if same {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.upper.Load() || n.dead || n.parent == nil {
		return
	}
	n.name = name
	if n.isDir() {
		n.dir.lowers[0].Moved(e.dir, name)
	} else {
		n.in = e.dir
	}
	if n.parent != parent {
		fs.nodes.moved(n, n.parent, parent)
		n.parent = parent
	}
}

// entryKey is the key of the node that an entry belongs to. Like ovl_hash_bylower.
func entryKey(parent *node, name string, e *entry) key {
	k := keyOf(&e.st)
	if e.where == inLower && !e.isDir() && e.st.Nlink > 1 && e.link == nil {
		k = k.named(parent, name)
	}
	return k
}

// peek returns the node of an entry if there is one, without counting a lookup.
func (fs *FS) peek(parent *node, name string, e *entry) *node {
	return fs.nodes.find(entryKey(parent, name, e), false)
}

// resolve finds out what the layers have of a name, from the top down. Like ovl_lookup, up to the topmost object.
//
// Precondition: parent.dir.entriesMu is held.
func (fs *FS) resolve(parent *node, name string) (entry, error) {
	var e entry
	if fs.options().AUFSMarks && whiteout.IsAUFS(name) {
		return e, nil
	}
	if upper := parent.dir.upper.Load(); upper != nil {
		e.probed++
		found, white, err := fs.probe(upper, name, &e.st)
		if err != nil {
			return e, err
		}
		if white {
			e.where = hidden
			if e.st.Mode == 0 { // nothing is there: it is an AUFS mark that hides it
				e.where = hiddenBelow
			}
			return e, nil
		}
		if found {
			e.where, e.dir = inUpper, upper
			return e, nil
		}
	}
	for i := fs.below(parent.dir, name, 0); i >= 0; i = fs.below(parent.dir, name, i+1) {
		lower := parent.dir.lowers[i]
		e.probed++
		found, white, err := fs.probe(lower, name, &e.st)
		if err != nil {
			return e, err
		}
		if white {
			e.where = hiddenBelow
			return e, nil
		}
		if found {
			e.where, e.dir, e.below = inLower, lower, i+1
			return e, fs.lookupIndex(&e, name)
		}
	}
	return e, nil
}

// lowerHas reports whether a lower layer has something of the name that would show if the upper had nothing. Like
// ovl_lower_positive.
func (fs *FS) lowerHas(parent *node, name string) (bool, error) {
	var st unix.Stat_t
	for i := fs.below(parent.dir, name, 0); i >= 0; i = fs.below(parent.dir, name, i+1) {
		found, white, err := fs.probe(parent.dir.lowers[i], name, &st)
		if found || white || err != nil {
			return found && !white, err
		}
	}
	return false, nil
}

// probe asks one layer directory for a name.
func (fs *FS) probe(dir *layer.Dir, name string, st *unix.Stat_t) (found, white bool, err error) {
	switch err := dir.Stat(name, st); err {
	case nil:
	case unix.ENOENT:
		white, err := fs.hiddenByAUFS(dir, name)
		return false, white, err
	case unix.ESTALE:
		return false, false, nil
	default:
		return false, false, err
	}
	if whiteout.Is(st) {
		return false, true, nil
	}
	if dir.Marked {
		white, err := whiteout.IsMarked(dir.At(name), st, fs.stack.Xattr)
		if white || err != nil {
			return false, white, err
		}
	}
	return true, false, fs.overrideOf(dir.Layer()).Apply(dir.At(name), st)
}

// openDirectory opens every layer directory that is merged into the directory name of parent. If the upper one has a
// redirect, that is returned too.
func (fs *FS) openDirectory(parent *node, name string, e *entry) (d *directory, redirect string, err error) {
	d = &directory{}
	m := merger{fs: fs, parent: parent.dir, next: e.below, name: name}
	if m.sealed, err = fs.hiddenByAUFS(e.dir, name); err != nil {
		return nil, "", err
	}
	top, err := e.dir.OpenDir(name)
	if err != nil {
		return nil, "", err
	}
	if e.where == inUpper {
		d.upper.Store(top)
		d.impure.Store(fs.hasMark(top, fs.stack.Xattr.Impure))
	} else {
		d.lowers = append(d.lowers, top)
		m.size = e.st.Size
	}
	lowers, err := m.collect(top)
	d.lowers = append(d.lowers, lowers...)
	d.names.size = m.size
	if err != nil {
		closeDirectory(d)
		return nil, "", err
	}
	return d, m.redirected, nil
}

func closeDirectory(d *directory) {
	(&node{dir: d, pin: -1}).close()
}

// merger walks down the lower layers and finds the directories that are merged below one that was found already.
type merger struct {
	fs     *FS
	parent *directory
	next   int    // index into parent.lowers, or into the stack's lower layers once a redirect was absolute
	name   string // the name to look for there; a path from the root of the layer once a redirect was absolute
	rooted bool
	ended  bool // what was found hides the layers below it

	redirected string // the redirect of the upper object, if it has one
	size       int64  // of the directories that were found in lower layers
	deferred   string // where in a data-only layer the data of a file are
	sealed     bool   // an AUFS mark beside the directory that was found last hides what is below it

	walked *layer.Dir // the last directory on the way along a path, which is the merger's to close; nil if that is a root
}

// collect opens every lower directory that shows through top. On an error it returns those it has opened too.
func (m *merger) collect(top *layer.Dir) (lowers []*layer.Dir, err error) {
	for dir := top; ; {
		shows, err := m.below(dir)
		if err != nil || !shows {
			return lowers, err
		}
		if dir, err = m.open(); err != nil || dir == nil {
			return lowers, err
		}
		lowers = append(lowers, dir)
	}
}

// below takes the marks of the directory that was found last, and reports whether what is below shows through it.
func (m *merger) below(dir *layer.Dir) (bool, error) {
	if dir.Layer().Pos == len(m.fs.stack.Lowers)-1 {
		return false, nil // it is of the last layer
	}
	opacity, err := m.fs.opacity(dir)
	if err != nil {
		return false, err
	}
	dir.Marked = opacity == whiteout.Marked
	if opacity == whiteout.Opaque || m.sealed {
		return false, nil
	}
	return m.redirect(dir.Self(), dir.Layer())
}

func (m *merger) layers() int {
	if m.rooted {
		return len(m.fs.stack.Lowers)
	}
	return len(m.parent.lowers)
}

// more reports whether there are layers left to look at.
func (m *merger) more() bool { return !m.ended && m.next < m.layers() }

// redirect follows overlay.redirect of an object of the layer on: the object was renamed, and its lower parts are still
// under the old name, in the same directory or, if it begins with a slash, anywhere (ovl_check_redirect). It reports
// whether there are layers left to look at.
func (m *merger) redirect(obj layer.Ref, on *layer.Layer) (bool, error) {
	target, err := m.readRedirect(obj)
	if err != nil {
		return false, err
	}
	if target != "" && !m.fs.followRedirects {
		m.fs.log.Printf("directory %q was renamed with redirect_dir=on, and this union follows no redirects: mount it with redirect_dir=follow", m.name)
		return false, unix.EPERM
	}
	return m.follow(target, on)
}

// readRedirect returns overlay.redirect of an object, empty if it has none.
func (m *merger) readRedirect(obj layer.Ref) (string, error) {
	value, err := obj.Getxattr(m.fs.stack.Xattr.Redirect)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	target := unix.ByteSliceToString(value) // up to a NUL, as the kernel takes it
	path, absolute := strings.CutPrefix(target, "/")
	if path == "" || absolute && slices.Contains(strings.Split(path, "/"), "") || !absolute && strings.Contains(path, "/") {
		return "", unix.EIO
	}
	return target, nil
}

// follow goes where a redirect of an object of the layer on leads, and reports whether there are layers left to look at.
func (m *merger) follow(target string, on *layer.Layer) (bool, error) {
	if target == "" {
		return m.more(), nil
	}
	if on == m.fs.stack.Upper {
		m.redirected = target
	}
	err := m.turn(target, on, "")
	return m.more(), err
}

// turn makes m.name the redirect target of an object of the layer on, followed by rest: "" or, if the object is a
// directory on the way along the path m.name, the parts of it that come after. Like ovl_check_redirect.
func (m *merger) turn(target string, on *layer.Layer, rest string) error {
	for _, part := range strings.Split(strings.TrimPrefix(target, "/"), "/") {
		if part == "." || part == ".." {
			return unix.EIO
		}
	}
	if path, absolute := strings.CutPrefix(target, "/"); absolute {
		m.name, m.next, m.rooted = path+rest, on.Pos+1, true
		m.ended = false // whatever the path led through until here
		return nil
	}
	before := ""
	if m.rooted {
		before, _ = strings.CutSuffix(m.name, rest)
		before = before[:strings.LastIndexByte(before, '/')+1]
	}
	m.name = before + target + rest
	return nil
}

// open opens the next merged directory, or returns nil if there is none: no layer has it, or something that is not a
// directory is in the way.
func (m *merger) open() (*layer.Dir, error) {
	for i := m.advance(); i >= 0; i = m.advance() {
		dir, stop, err := m.openIn(i)
		if dir != nil || stop || err != nil {
			return dir, err
		}
	}
	return nil, nil
}

// advance returns the index of the next layer that may have m.name, or -1.
func (m *merger) advance() int {
	if m.ended {
		return -1
	}
	i := m.next
	if !m.rooted {
		i = m.fs.below(m.parent, m.name, i)
	}
	if i < 0 || i >= m.layers() {
		m.next = m.layers()
		return -1
	}
	m.next = i + 1
	return i
}

func (m *merger) openIn(i int) (dir *layer.Dir, stop bool, err error) {
	if !m.rooted {
		return m.step(m.parent.lowers[i], m.name)
	}
	defer m.leave()
	in, name, stop, err := m.walk(i)
	if in == nil || err != nil {
		return nil, stop, err
	}
	if dir, stop, err = m.step(in, name); dir != nil {
		err = dir.Pin() // its parent is closed here, so that it could not be opened again
	}
	return dir, stop, err
}

// walk goes along the path m.name in the layer i, and returns the directory that its last part is in, good until leave,
// and that part. It returns nil without stop where the layer has no such directory. The marks of the directories on the
// way count: below an opaque one no layer is looked at, and one that was renamed has another path in the layers below.
// Like ovl_lookup_layer.
func (m *merger) walk(i int) (in *layer.Dir, name string, stop bool, err error) {
	in = m.fs.stack.Lowers[i].Root
	path := m.name // which changes on the way for the next layer
	for {
		part, rest, more := strings.Cut(path, "/")
		if !more {
			return in, part, false, nil
		}
		dir, stop, err := m.step(in, part)
		if dir == nil {
			return nil, "", stop, err
		}
		if err := dir.Pin(); err != nil { // as in openIn
			dir.Close()
			return nil, "", false, err
		}
		m.leave()
		m.walked = dir
		if err := m.pass(dir, "/"+rest); err != nil {
			return nil, "", false, err
		}
		in, path = dir, rest
	}
}

// leave closes what walk has opened.
func (m *merger) leave() {
	if m.walked != nil {
		m.walked.Close()
		m.walked = nil
	}
}

// pass takes the marks of a directory on the way along the path m.name, of which rest comes after the directory.
func (m *merger) pass(dir *layer.Dir, rest string) error {
	if dir.Layer().Pos == len(m.fs.stack.Lowers)-1 {
		return nil
	}
	opacity, err := m.fs.opacity(dir)
	if err != nil {
		return err
	}
	dir.Marked = opacity == whiteout.Marked
	if opacity == whiteout.Opaque || m.sealed {
		m.ended = true
		return nil
	}
	target, err := m.readRedirect(dir.Self())
	if err != nil || target == "" {
		return err
	}
	return m.turn(target, dir.Layer(), rest)
}

// step opens one directory. It returns nil without stop where the layer has nothing of the name.
func (m *merger) step(in *layer.Dir, name string) (dir *layer.Dir, stop bool, err error) {
	var st unix.Stat_t
	found, white, err := m.fs.probe(in, name, &st)
	if err == unix.ENAMETOOLONG { // a redirect may say anything; the layer has no such name
		return nil, false, nil
	}
	if !found || err != nil {
		return nil, white, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, true, nil
	}
	if m.sealed, err = m.fs.hiddenByAUFS(in, name); err != nil {
		return nil, false, err
	}
	m.size += st.Size
	dir, err = in.OpenDir(name)
	return dir, false, err
}

// hasMark reports whether a directory has a mark of the value "y".
func (fs *FS) hasMark(dir *layer.Dir, attr string) bool {
	var buf [1]byte
	n, err := dir.Self().GetxattrInto(attr, buf[:])
	return err == nil && n == 1 && buf[0] == 'y'
}
