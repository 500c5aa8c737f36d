package union

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// names knows which of the lower directories of a merged one have which names, so that a lookup asks only those. It is
// made of one reading of each, once it has become plain that to ask them all costs more, and takes as much memory as there
// are entries in them: none for the layers that a name or a directory is absent from.
//
// Only the lower directories are in it, which we do not change; the upper one is always asked. What others change it is
// told of by the watcher, which marks the name: a marked name is looked for in every directory, as is every name while
// the directories are not watched. So it answers as the directories would have when the last event was taken note of.
type names struct {
	missed atomic.Int64 // how many lower directories were asked in vain
	size   int64        // of the lower directories together, in bytes, when they were found

	mu      sync.RWMutex
	heads   map[string]int32 // index into records of the topmost one of a name; doubtful if it was marked
	records []nameRecord
	changes int // how many names were marked, ever; while it is being made, too
}

// nameRecord says that a lower directory has a name.
type nameRecord struct {
	ino   uint64
	layer int32 // index among the lower directories
	next  int32 // index of the record of the next one below that has the name; noRecord if none has
	typ   uint8 // unix.DT_*
}

const (
	noRecord int32 = -1
	doubtful int32 = -2
)

// below returns the index of the next lower directory of d, counted from the given one on, that may have the name, or -1.
//
// Precondition: the entries of the directory are not being changed.
func (fs *FS) below(d *directory, name string, from int) int {
	if from >= len(d.lowers) {
		return -1
	}
	const few = 2 // to ask so many is no more work than to find out whom to ask
	if len(d.lowers) < few || len(name) > unix.NAME_MAX || !fs.hears(d) {
		return from
	}
	if from > 0 {
		d.names.missed.Add(1)
	}
	if next, known := d.names.next(name, from); known {
		return next
	}
	if d.names.missed.Load() > d.names.patience() {
		if fs.learnNames(d) == nil {
			if next, known := d.names.next(name, from); known {
				return next
			}
		}
	}
	return from
}

// patience is how many lower directories are asked in vain before all are read. To read one takes a few times as long as to ask
// it, and more the larger it is; but many are read at once, while they are asked one after the other, and where they are
// not in memory it is the disk that takes the time. So it is worth it before a single name was asked of hundreds.
func (t *names) patience() int64 {
	const (
		least   = 32
		perName = 8 * 4096
	)
	return max(least, t.size/perName)
}

// next is below, if that is known.
func (t *names) next(name string, from int) (next int, known bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.heads == nil {
		return 0, false
	}
	i, has := t.heads[name]
	if !has {
		return -1, true
	}
	if i == doubtful {
		return 0, false
	}
	for ; i != noRecord; i = t.records[i].next {
		if at := int(t.records[i].layer); at >= from {
			return at, true
		}
	}
	return -1, true
}

// mark notes that a name may have changed in one of the directories.
func (t *names) mark(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	if t.heads == nil {
		return
	}
	t.heads[name] = doubtful
	if t.changes > len(t.heads)/4+64 { // begin again
		t.forgetLocked()
	}
}

// forget makes all names unknown.
func (t *names) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	t.forgetLocked()
}

func (t *names) forgetLocked() {
	t.heads, t.records = nil, nil
	t.missed.Store(0)
}

// learnNames reads the lower directories of d. What changes meanwhile makes it all in vain.
func (fs *FS) learnNames(d *directory) error {
	t := &d.names
	t.mu.Lock()
	before := t.changes
	done := t.heads != nil
	t.mu.Unlock()
	if done {
		return nil
	}
	layers, err := fs.readAllNames(d.lowers)
	if err != nil {
		return err
	}
	read := names{heads: map[string]int32{}}
	for i := len(layers) - 1; i >= 0; i-- { // upwards, so that the topmost record of a name comes first
		for _, n := range layers[i] {
			next, below := read.heads[n.name]
			if !below {
				next = noRecord
			}
			read.heads[n.name] = int32(len(read.records))
			read.records = append(read.records, nameRecord{ino: n.ino, layer: int32(i), next: next, typ: n.typ})
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed.Store(0)
	if t.changes == before && t.heads == nil {
		t.heads, t.records, t.changes = read.heads, read.records, 0
	}
	return nil
}

// layerName is a name that one directory has.
type layerName struct {
	name string
	ino  uint64
	typ  uint8 // unix.DT_*
}

// readAllNames returns the names of each directory. Many are read at once: the time goes by waiting for a disk.
func (fs *FS) readAllNames(dirs []*layer.Dir) ([][]layerName, error) {
	const (
		atOnce = 16
		few    = 8 // so few are read before the threads for more have started
	)
	all := make([][]layerName, len(dirs))
	if len(dirs) < few {
		for i, dir := range dirs {
			var err error
			if all[i], err = fs.readNames(dir); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, dir := range dirs {
		group.Go(func() (err error) {
			all[i], err = fs.readNames(dir)
			return err
		})
	}
	return all, group.Wait()
}

// readNames returns the names of one directory.
func (fs *FS) readNames(dir *layer.Dir) (list []layerName, err error) {
	aufs := fs.options().AUFSMarks
	err = dir.Entries(func(e sys.Dirent) error {
		if name := string(e.Name); !aufs || !whiteout.IsAUFS(name) {
			list = append(list, layerName{name, e.Ino, e.Type})
		} else if hidden, ok := whiteout.AUFSHidden(name); ok {
			list = append(list, layerName{hidden, 0, unix.DT_UNKNOWN}) // whoever asks the directory for the name is told of the mark
		}
		return nil
	})
	if removed(err) {
		return nil, nil
	}
	return list, err
}

// removed reports whether a lower directory cannot be read because somebody has removed it on the host. It has no entries
// then.
func removed(err error) bool { return err == unix.ENOENT || err == unix.ESTALE }

// known adds to l what the lower directories have, from memory. It reports false if that is not known.
func (l *lister) known() (bool, error) {
	d := l.node.dir
	if len(d.lowers) < 2 || !l.fs.hears(d) {
		return false, nil
	}
	if err := l.fs.learnNames(d); err != nil {
		return false, err
	}
	t := &d.names
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.heads == nil {
		return false, nil
	}
	for name, i := range t.heads {
		if _, decided := l.seen[name]; decided {
			continue
		}
		if err := l.topmost(name, i); err != nil {
			return false, err
		}
	}
	return true, nil
}

// topmost adds the topmost lower entry of a name, which the record i is about, unless it is a whiteout.
func (l *lister) topmost(name string, i int32) error {
	d := l.node.dir
	if i == doubtful {
		for _, dir := range d.lowers {
			if decided, err := l.ask(dir, name, false); decided || err != nil {
				return err
			}
		}
		return nil
	}
	for ; i != noRecord; i = d.names.records[i].next {
		r := d.names.records[i]
		dir := d.lowers[r.layer]
		if l.tells(dir, r.typ, false) {
			l.entries = append(l.entries, dirent{name: name, typ: r.typ, ino: l.fs.mapInode(dir.Layer(), dir.Layer().Dev, r.ino)})
			return nil
		}
		if decided, err := l.ask(dir, name, false); decided || err != nil {
			return err
		}
	}
	return nil
}
