package diff

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// dir is an open directory of one layer, with its mark.
type dir struct {
	*layer.Dir
	opacity whiteout.Opacity
}

func (w *walker) describe(d *layer.Dir) (dir, error) {
	opacity, err := whiteout.OpacityOf(d.Self(), w.xattr)
	return dir{d, opacity}, err
}

func (w *walker) open(parent dir, name string) (dir, error) {
	d, err := parent.OpenDir(name)
	if err != nil {
		return dir{}, err
	}
	described, err := w.describe(d)
	if err != nil {
		d.Close()
	}
	return described, err
}

// merged are the lower directories that the union shows as one, the topmost first.
type merged []dir

func (m merged) close() {
	for _, d := range m {
		d.Close()
	}
}

// object is what one layer has under a name.
type object struct {
	kind kind
	ref  layer.Ref
	st   unix.Stat_t
}

type kind int

const (
	absent  kind = iota // nothing
	white               // a whiteout
	present             // an object of a user
)

func (o *object) isDir() bool {
	return o.kind == present && o.st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// find looks for name in one directory.
func (w *walker) find(d dir, name string) (object, error) {
	o := object{ref: d.At(name)}
	err := o.ref.Stat(&o.st)
	if err == unix.ENOENT {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	is := whiteout.Is(&o.st)
	if d.opacity == whiteout.Marked && !is {
		if is, err = whiteout.IsMarked(o.ref, &o.st, w.xattr); err != nil {
			return o, err
		}
	}
	o.kind = present
	if is {
		o.kind = white
	}
	return o, nil
}

// topmost returns what the lower layers show of name: an object that is absent or present.
func (w *walker) topmost(lowers merged, name string) (object, error) {
	for _, d := range lowers {
		switch o, err := w.find(d, name); {
		case err != nil || o.kind == present:
			return o, err
		case o.kind == white:
			return object{}, nil
		}
	}
	return object{}, nil
}

// below opens the directories that lowers merge under name; none if they show no directory there. Like ovl_lookup.
// The caller closes them, also after an error.
func (w *walker) below(lowers merged, name string) (merged, error) {
	var m merged
	for _, parent := range lowers {
		o, err := w.find(parent, name)
		if err != nil {
			return m, err
		}
		if o.kind == absent {
			continue
		}
		if !o.isDir() {
			break
		}
		d, err := w.open(parent, name)
		if err != nil {
			return m, err
		}
		m = append(m, d)
		if d.opacity == whiteout.Opaque {
			break
		}
	}
	return m, nil
}

// names returns all names that the merged directories show.
func (w *walker) names(lowers merged) (map[string]bool, error) {
	shown := make(map[string]bool)
	decided := make(map[string]bool) // by a layer above
	for _, d := range lowers {
		names, err := d.Names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if decided[name] {
				continue
			}
			o, err := w.find(d, name)
			if err != nil {
				return nil, err
			}
			decided[name] = true
			if o.kind == present {
				shown[name] = true
			}
		}
	}
	return shown, nil
}

// differ reports whether an object has changed, as moby's statDifferent does in pkg/archive.
func differ(was, now object) (bool, error) {
	a, b := &was.st, &now.st
	switch {
	case a.Mode != b.Mode, a.Uid != b.Uid, a.Gid != b.Gid, a.Rdev != b.Rdev:
		return true, nil
	case now.isDir(): // size and time of a directory say nothing of it
		return false, nil
	case a.Size != b.Size, !sameTime(a.Mtim, b.Mtim):
		return true, nil
	case a.Mode&unix.S_IFMT != unix.S_IFREG:
		return false, nil
	}
	capsWas, err := capabilities(was.ref)
	if err != nil {
		return false, err
	}
	capsNow, err := capabilities(now.ref)
	return !bytes.Equal(capsWas, capsNow), err
}

// sameTime compares times of modification. No nanoseconds means that they were lost on the way, as in a tar archive.
func sameTime(a, b unix.Timespec) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}

func capabilities(r layer.Ref) ([]byte, error) {
	value, err := r.Getxattr("security.capability")
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil, nil
	}
	return value, err
}
