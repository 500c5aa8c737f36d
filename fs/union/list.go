package union

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// listLocked returns the entries that the directory shows: to a user, or for a purpose of ours.
//
// Precondition: n.dir.entriesMu is held.
func (fs *FS) listLocked(n *node, user bool) ([]dirent, error) {
	l := lister{fs: fs, node: n, user: user}
	err := l.list()
	if err == nil && user && !l.borrows && len(n.dir.lowers) == 0 && n.dir.impure.Load() {
		fs.unmarkImpure(n)
	}
	return l.entries, err
}

// unmarkImpure removes the mark of markImpure from a directory that was read, and had no entry for which it is needed: best
// effort, as in ovl_dir_read_impure.
//
// Precondition: n.dir.entriesMu is held, so that no such entry arrives.
func (fs *FS) unmarkImpure(n *node) {
	if fs.writable() == nil && n.dir.upper.Load().Self().Removexattr(fs.stack.Xattr.Impure) == nil {
		n.dir.impure.Store(false)
	}
}

// dirent is one entry of a merged directory.
type dirent struct {
	name string
	ino  uint64
	typ  uint8 // unix.DT_*

	off uint64 // see cookies
}

// lister merges the layers of a directory: entries of a layer show unless a layer above has the name, be it as a
// whiteout. Like ovl_dir_read_merged.
type lister struct {
	fs      *FS
	node    *node
	user    bool
	borrows bool // an entry of the upper layer shows the number of a lower object
	entries []dirent
	seen    map[string]struct{} // names that are decided; nil while one layer is all there is
}

func (l *lister) list() error {
	d := l.node.dir
	if d.merged() {
		l.seen = map[string]struct{}{}
	}
	if upper := d.upper.Load(); upper != nil {
		if err := l.layer(upper, true); err != nil {
			return err
		}
	}
	if known, err := l.known(); known || err != nil {
		return err
	}
	for _, lower := range d.lowers {
		if err := l.layer(lower, false); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) layer(dir *layer.Dir, upper bool) error {
	aufs := l.fs.options().AUFSMarks
	var hidden []string // by AUFS marks of this layer, in the layers below
	err := dir.EntriesFor(l.user, func(e sys.Dirent) error {
		name := string(e.Name)
		if aufs && whiteout.IsAUFS(name) {
			if what, ok := whiteout.AUFSHidden(name); ok {
				hidden = append(hidden, what)
			}
			return nil
		}
		if l.seen != nil {
			if _, decided := l.seen[name]; decided {
				return nil
			}
			l.seen[name] = struct{}{}
		}
		d := dirent{name: name, typ: e.Type, ino: l.fs.mapInode(dir.Layer(), dir.Layer().Dev, e.Ino)}
		if l.tells(dir, e.Type, upper) {
			l.entries = append(l.entries, d)
			return nil
		}
		_, err := l.ask(dir, name, upper)
		return err
	})
	if !upper && removed(err) {
		err = nil
	}
	if l.seen != nil {
		for _, name := range hidden {
			l.seen[name] = struct{}{}
		}
	}
	return err
}

// ask adds an entry that has to be looked at. It reports whether the directory decides what the name is: it has it, or a
// whiteout of it.
func (l *lister) ask(dir *layer.Dir, name string, upper bool) (decides bool, err error) {
	var st unix.Stat_t
	found, white, err := l.fs.probe(dir, name, &st)
	if !found || white || err != nil {
		return white, err
	}
	ino := l.inode(dir, name, &st, upper)
	l.borrows = l.borrows || upper && ino != l.fs.mapInode(dir.Layer(), st.Dev, st.Ino)
	l.entries = append(l.entries, dirent{name: name, typ: uint8(st.Mode & unix.S_IFMT >> 12), ino: ino})
	return true, nil
}

// tells reports whether an entry as the file system gave it is all that there is to know: it is no whiteout, and its
// inode number is the one to show.
func (l *lister) tells(dir *layer.Dir, typ uint8, upper bool) bool {
	switch {
	case typ == unix.DT_REG && l.fs.overrideOf(dir.Layer()) != "":
		return false // maybe a device
	case typ == unix.DT_CHR, typ == unix.DT_UNKNOWN, typ == unix.DT_REG && dir.Marked:
		return false // maybe a whiteout
	case !upper:
		return true
	default: // a copy shows the number of its origin, a merged directory that of the lower one
		return !l.node.dir.impure.Load() && (typ != unix.DT_DIR || len(l.node.dir.lowers) == 0)
	}
}

// inode is the inode number of an entry as a lookup would show it.
func (l *lister) inode(dir *layer.Dir, name string, st *unix.Stat_t, upper bool) uint64 {
	if n := l.fs.nodes.find(keyOf(st), false); n != nil {
		return n.ino.Load()
	}
	own := l.fs.mapInode(dir.Layer(), st.Dev, st.Ino)
	if !upper {
		return own
	}
	n := &node{kind: st.Mode & unix.S_IFMT, pin: -1}
	n.upper.Store(true)
	if n.kind == unix.S_IFDIR {
		var err error
		if n.dir, _, err = l.fs.openDirectory(l.node, name, &entry{where: inUpper, st: *st, dir: dir}); err != nil {
			return own // whoever looks it up will be told why
		}
		defer n.close()
	}
	ino := l.fs.inodeNumber(l.node, n, dir.At(name), st)
	if ino != own && l.fs.nodes.borrowed(ino) {
		return own
	}
	return ino
}
