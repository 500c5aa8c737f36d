package union

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// listLocked returns the entries that the directory shows.
//
// Precondition: n.entriesMu is held.
func (fs *FS) listLocked(n *node) ([]dirent, error) {
	l := lister{fs: fs, dir: n.dir}
	err := l.list()
	return l.entries, err
}

// dirent is one entry of a merged directory.
type dirent struct {
	name string
	ino  uint64
	typ  uint8 // unix.DT_*
}

// lister merges the layers of a directory: entries of a layer show unless a layer above has the name, be it as a
// whiteout. Like ovl_dir_read_merged.
type lister struct {
	fs      *FS
	dir     *directory
	entries []dirent
	seen    map[string]struct{} // names that are decided; nil while one layer is all there is
}

func (l *lister) list() error {
	upper := l.dir.upper.Load()
	if l.dir.merged() {
		l.seen = map[string]struct{}{}
	}
	if upper != nil {
		if err := l.layer(upper, true); err != nil {
			return err
		}
	}
	for _, lower := range l.dir.lowers {
		if err := l.layer(lower, false); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) layer(dir *layer.Dir, upper bool) error {
	impure := upper && l.dir.impure.Load()
	return dir.Entries(func(e sys.Dirent) error {
		if l.seen != nil {
			if _, decided := l.seen[string(e.Name)]; decided {
				return nil
			}
		}
		name := string(e.Name)
		if l.seen != nil {
			l.seen[name] = struct{}{}
		}
		d := dirent{name: name, typ: e.Type, ino: e.Ino}
		var st unix.Stat_t
		needStat := e.Type == unix.DT_CHR || e.Type == unix.DT_UNKNOWN || dir.Marked && e.Type == unix.DT_REG
		if needStat || impure || l.merges(e.Type) {
			found, white, err := l.fs.probe(dir, name, &st)
			if !found || white || err != nil {
				return err
			}
			d.typ = uint8(st.Mode & unix.S_IFMT >> 12)
			d.ino = l.fs.listedInode(dir, name, &st, impure)
		} else {
			d.ino = l.fs.mapInode(dir.Layer(), dir.Layer().Dev, e.Ino)
		}
		l.entries = append(l.entries, d)
		return nil
	})
}

// merges reports whether an entry of the type may have another inode number than its own, though nothing in its
// directory was copied up: that of the lower directory that it is merged with.
func (l *lister) merges(typ uint8) bool {
	return typ == unix.DT_DIR && l.dir.merged()
}

// listedInode is the inode number of an entry as a lookup would show it.
func (fs *FS) listedInode(dir *layer.Dir, name string, st *unix.Stat_t, impure bool) uint64 {
	if n := fs.nodes.find(keyOf(st), false); n != nil {
		return n.ino.Load()
	}
	if impure && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if ino, fsid, ok := fs.origins.Inode(dir.At(name), fs.stack.Xattr); ok {
			return fs.composeInode(fsid, ino)
		}
	}
	return fs.mapInode(dir.Layer(), st.Dev, st.Ino)
}
