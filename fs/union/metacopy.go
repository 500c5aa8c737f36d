package union

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// A metacopy is a file that was copied up without its data: the upper file has the metadata, the size, the mark
// overlay.metacopy and a hole; the data are in the file that the layers below have under its name, or where its
// redirect says. The first change of the data brings them up (fs/overlayfs, "Metadata only copy up").

// findData finds out whether the file n, of which e is the topmost object, is a metacopy, and opens the file that has the
// data if so. EPERM without metacopy=on, EIO if no layer has the data.
//
// Preconditions: FS.renameMu and parent.dir.entriesMu are held; nobody else knows n yet.
func (fs *FS) findData(parent, n *node, e *entry) error {
	ref, on, next := e.dir.At(n.name), e.dir.Layer(), e.below
	if e.link != nil && e.link.up {
		ref, on, next = n.index.entry, fs.stack.Upper, e.below-1
	}
	// The mark alone tells. How many blocks a file has does not: attributes take some, and file systems allocate ahead.
	is, lazy, err := fs.isMetacopy(ref)
	if !is || err != nil {
		return err
	}
	if lazy {
		return fs.resumeLazy(parent, n, e)
	}
	m := merger{fs: fs, parent: parent.dir, next: next, name: n.name}
	data, err := m.findData(ref, on)
	if err == unix.EPERM {
		fs.log.Printf("%q was copied up with metacopy=on, and has its data in a lower layer: mount with metacopy=on", n.name)
	}
	if err != nil {
		return err
	}
	n.redirect = m.redirected
	if m.deferred != "" {
		where := m.deferred
		n.deferred = &where
	}
	n.setData(data)
	n.meta.Store(true)
	return nil
}

func (fs *FS) isMetacopy(ref layer.Ref) (is, lazy bool, err error) {
	var buf [256]byte
	n, err := ref.GetxattrInto(fs.stack.Xattr.Metacopy, buf[:])
	switch err {
	case nil:
		return true, cow.IsLazyMark(buf[:n]), nil
	case unix.ENODATA, unix.EOPNOTSUPP:
		return false, false, nil
	default:
		return false, false, err
	}
}

// findData opens, as O_PATH, the file below obj, an object of the layer on, that has data of its own. If they are in a
// data-only layer it returns -1, and m.deferred says where. EPERM without metacopy=on, EIO if no layer has the data.
func (m *merger) findData(obj layer.Ref, on *layer.Layer) (int, error) {
	defer m.leave()
	refused := false // to go on would mean to follow what is not to be followed (ovl_check_nextredirect)
	for {
		redirect, err := m.readRedirect(obj)
		if err != nil {
			return -1, err
		}
		refused = refused || !m.fs.stack.Spec.Options.Metacopy || redirect != "" && !m.fs.followRedirects
		below, layer, err := m.nextData(redirect, on, refused)
		switch {
		case err == unix.EIO && m.mayDefer(redirect, on):
			m.deferred = redirect[1:]
			return -1, nil
		case err == unix.EIO && refused:
			return -1, unix.EPERM
		case err != nil:
			return -1, err
		}
		if on == m.fs.stack.Upper && m.fs.index != nil {
			// Another file may have been put there since, and it would be taken for one of the index (ovl_lookup).
			if err := m.fs.index.Verify(obj, below, layer.Dev); err != nil {
				return -1, err
			}
		}
		obj, on = below, layer
		is, lazy, err := m.fs.isMetacopy(obj)
		if err != nil {
			return -1, err
		}
		if lazy { // it was copied up when its layer was the upper one of a union, and that was not finished
			return -1, unix.EIO
		}
		if !is {
			return obj.OpenPath()
		}
	}
}

// nextData returns the next file that may have the data of a metacopy of the layer on. EIO if there is none.
func (m *merger) nextData(redirect string, on *layer.Layer, refused bool) (layer.Ref, *layer.Layer, error) {
	more, err := m.follow(redirect, on)
	switch {
	case err != nil:
		return layer.Ref{}, nil, err
	case !more:
		return layer.Ref{}, nil, unix.EIO
	case refused:
		return layer.Ref{}, nil, unix.EPERM
	}
	return m.nextFile()
}

// nextFile returns the next regular file of the name that is looked for, and its layer. EIO if there is none.
func (m *merger) nextFile() (layer.Ref, *layer.Layer, error) {
	for {
		dir, name, err := m.nextParent()
		if err != nil {
			return layer.Ref{}, nil, err
		}
		if dir == nil {
			return layer.Ref{}, nil, unix.EIO
		}
		var st unix.Stat_t
		found, white, err := m.fs.probe(dir, name, &st)
		switch {
		case err != nil:
			return layer.Ref{}, nil, err
		case white, found && st.Mode&unix.S_IFMT != unix.S_IFREG:
			return layer.Ref{}, nil, unix.EIO
		case found:
			return dir.At(name), dir.Layer(), nil
		}
	}
}

// nextParent returns the directory of the next layer that may have the file m.name, good until leave, and the last part of
// that name. It returns nil if no layer is left that has the directory.
func (m *merger) nextParent() (*layer.Dir, string, error) {
	m.leave()
	for i := m.advance(); i >= 0; i = m.advance() {
		if !m.rooted {
			return m.parent.lowers[i], m.name, nil
		}
		dir, last, stop, err := m.walk(i)
		if dir != nil || stop || err != nil {
			return dir, last, err
		}
	}
	return nil, "", nil
}

// setData makes n a metacopy with the data of the descriptor, which becomes the node's; -1 for no metacopy.
//
// Precondition: n.mu is held, or nobody else knows n yet.
func (n *node) setData(fd int) {
	n.closeData()
	n.data = int32(fd)
	n.meta.Store(fd >= 0)
}

func (n *node) closeData() {
	if n.meta.Load() && n.data >= 0 {
		unix.Close(int(n.data))
	}
}

// copyUpData gives a metacopy its data. The mark goes last: until then the file is what it was, also after a crash. Like
// ovl_copy_up_meta_inode_data.
func (fs *FS) copyUpData(n *node, why copyUpFor) error {
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	if !n.meta.Load() {
		return nil
	}
	if l := n.filling(); l != nil {
		if why.truncate {
			return l.truncate()
		}
		return l.finish()
	}
	if err := fs.findDeferred(n); err != nil {
		return err
	}
	var dst int
	err := n.use(func(r layer.Ref) (err error) {
		dst, err = r.Open(unix.O_RDWR)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := fs.fillMetacopy(dst, int(n.data), why); err != nil { // only a copy-up changes n.data
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setData(-1)
	return nil
}

func (fs *FS) fillMetacopy(dst, data int, why copyUpFor) (err error) {
	upper := layer.RefFD(dst)
	var st unix.Stat_t
	if err := upper.Stat(&st); err != nil {
		return err
	}
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	defer func() {
		if err != nil {
			_ = upper.Utimens(times) // it shows what it showed, but for the space that it takes
		}
	}()
	const capability = "security.capability" // writing data clears it
	caps, err := upper.Getxattr(capability)
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	if why.truncate {
		err = sys.Ftruncate(dst, 0)
	} else {
		err = fs.copyData(dst, data, st.Size, why)
	}
	if err != nil {
		return err
	}
	if len(caps) > 0 {
		if err := upper.Setxattr(capability, caps, 0); err != nil {
			return err
		}
	}
	if err := upper.Utimens(times); err != nil {
		return err
	}
	return upper.Removexattr(fs.stack.Xattr.Metacopy)
}

func (fs *FS) copyData(dst, data int, size int64, why copyUpFor) error {
	src, err := layer.RefFD(data).Open(unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	_, err = sys.CopyData(dst, src, size, why.caller.killed)
	return err
}
