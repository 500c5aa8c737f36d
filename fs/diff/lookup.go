package diff

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

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
	if err == nil && w.aufs && opacity != whiteout.Opaque {
		var opaque bool
		if opaque, err = whiteout.OpaqueByAUFS(d); opaque {
			opacity = whiteout.Opaque
		}
	}
	return dir{d, opacity}, err
}

func (w *walker) open(parent dir, name string) (dir, error) {
	d, err := parent.OpenDir(name)
	if err != nil {
		return dir{}, err
	}
	described, err := w.describe(d)
	if err == nil {
		var hidden bool
		if hidden, err = w.hidden(parent, name); hidden {
			described.opacity = whiteout.Opaque
		}
	}
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
		hidden, err := w.hidden(d, name)
		if hidden {
			o.kind = white
		}
		return o, err
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

// hidden reports whether an AUFS mark beside it hides what the layers below d have of name.
func (w *walker) hidden(d dir, name string) (bool, error) {
	if !w.aufs {
		return false, nil
	}
	return whiteout.HiddenByAUFS(d.Dir, name)
}

// list returns the names that the directory has something for, be it a whiteout.
func (w *walker) list(d dir) ([]string, error) {
	names, err := d.Names()
	if err != nil || !w.aufs {
		return names, err
	}
	set := make(map[string]bool)
	for _, name := range names {
		if whiteout.IsAUFS(name) {
			what, ok := whiteout.AUFSHidden(name)
			if !ok {
				continue
			}
			name = what
		}
		set[name] = true
	}
	return slices.Collect(maps.Keys(set)), nil
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
	for i, parent := range lowers {
		d, stop, err := w.step(parent, name)
		if err != nil || stop {
			return m, err
		}
		if d.Dir == nil {
			continue
		}
		m = append(m, d)
		if d.opacity == whiteout.Opaque {
			return m, nil
		}
		target, err := w.redirect(d)
		if err != nil {
			return m, err
		}
		if target != "" {
			more, err := w.redirected(d, lowers[i+1:], target)
			return append(m, more...), err
		}
	}
	return m, nil
}

// step opens the directory name of parent. It returns none if there is nothing of the name, and stop if there is something
// that hides what is below it.
func (w *walker) step(parent dir, name string) (d dir, stop bool, err error) {
	o, err := w.find(parent, name)
	if err != nil || o.kind == absent {
		return dir{}, false, err
	}
	if !o.isDir() {
		return dir{}, true, nil
	}
	d, err = w.open(parent, name)
	return d, false, err
}

// redirect returns where what d is merged with is to be looked for, if d was renamed: a name, or a path from the root of
// the union. EPERM if redirects are not followed: then the union does not show d either.
func (w *walker) redirect(d dir) (string, error) {
	value, err := d.Self().Getxattr(w.xattr.Redirect)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return "", nil
	}
	if err == nil && !w.follow {
		err = unix.EPERM
	}
	return string(value), err
}

// redirected opens the directories that d, which was renamed, is merged with: under another name in the directories
// below, or under a path in the layers below. The caller closes them, also after an error.
func (w *walker) redirected(d dir, below merged, target string) (merged, error) {
	path, absolute := strings.CutPrefix(target, "/")
	if !absolute {
		return w.below(below, target)
	}
	m := w.roots[d.Layer().Pos+1:]
	parts := strings.Split(path, "/")
	for i, part := range parts {
		next, err := w.below(m, part)
		for _, d := range next { // its parent is closed here, so that it could not be opened again
			err = errors.Join(err, d.Pin())
		}
		if i > 0 {
			m.close()
		}
		if err != nil || i == len(parts)-1 {
			return next, err
		}
		m = next
	}
	return nil, nil
}

// names returns all names that the merged directories show.
func (w *walker) names(lowers merged) (map[string]bool, error) {
	shown := make(map[string]bool)
	decided := make(map[string]bool) // by a layer above
	for _, d := range lowers {
		names, err := w.list(d)
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
