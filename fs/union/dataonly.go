package union

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Data-only lower layers show no names. They have the data of metacopies in the lower layers above them, which tell
// where by an absolute redirect. The data are looked for when they are needed first: a layer of files that all point
// elsewhere can be listed and looked at without touching what it points to. Like ovl_maybe_lookup_lowerdata.

// mayDefer reports whether the data of obj, a metacopy of the layer on with a redirect, may be in a data-only layer. No
// option is needed for that: who names such a layer wants it to be used, and only the lower layers can point to it.
func (m *merger) mayDefer(redirect string, on *layer.Layer) bool {
	return on != m.fs.stack.Upper && len(m.fs.stack.Data) > 0 && redirect != "" && redirect[0] == '/'
}

// findDeferred finds the data of n in the data-only layers, if they were not needed before.
func (fs *FS) findDeferred(n *node) error {
	if n.deferred == nil || !n.meta.Load() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.data >= 0 || !n.meta.Load() {
		return nil
	}
	err := error(unix.ENOENT)
	for _, l := range fs.stack.Data {
		var fd int
		if fd, err = openData(l, *n.deferred); err == nil {
			n.data = int32(fd)
			return nil
		}
	}
	fs.log.Printf("%q has its data at %q in a data-only layer, and they cannot be found: %v", n.name, *n.deferred, err)
	return err
}

// openData opens, as O_PATH, the regular file at a path in a data-only layer (ovl_lookup_data_layer).
func openData(l *layer.Layer, path string) (int, error) {
	fd, err := l.Root.OpenBeneath(path)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = layer.RefFD(fd).Stat(&st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
