package diff

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// Kind says what happened to a path.
type Kind string

// The kinds of changes.
const (
	Added   Kind = "A"
	Changed Kind = "C"
	Deleted Kind = "D"
)

// Change is one path that is not as it is in the lower layers.
type Change struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // in the union, from its root: "/etc/passwd"
}

// String returns the change as docker diff prints it.
func (c Change) String() string { return string(c.Kind) + " " + c.Path }

// Changes returns what the upper layer of stack changes, sorted by the bytes of the paths; nothing, not nil, if there
// is no upper layer. [layer.OpenReadOnly] makes a stack that will do.
func Changes(stack *layer.Stack) ([]Change, error) {
	w := walker{xattr: stack.Xattr, changes: []Change{}}
	if stack.Upper == nil {
		return w.changes, nil
	}
	upper, err := w.describe(stack.Upper.Root)
	if err != nil {
		return nil, fmt.Errorf("read upper layer %q: %w", stack.Upper.Path, err)
	}
	var lowers merged
	for _, l := range stack.Lowers {
		d, err := w.describe(l.Root)
		if err != nil {
			return nil, fmt.Errorf("read lower layer %q: %w", l.Path, err)
		}
		lowers = append(lowers, d)
	}
	if err := w.walk("", upper, lowers, false); err != nil {
		return nil, err
	}
	slices.SortFunc(w.changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return w.changes, nil
}

// walker collects the changes of one stack.
type walker struct {
	xattr   layer.XattrNames
	changes []Change
}

func (w *walker) add(kind Kind, path string) { w.changes = append(w.changes, Change{kind, path}) }

// walk adds the changes below the directory upper, which is at path in the union ("" for the root). The lower layers
// have lowers there; hidden says that the union does not show them, since upper or a directory above it is opaque.
func (w *walker) walk(path string, upper dir, lowers merged, hidden bool) error {
	names, err := upper.Names()
	if err != nil {
		return failed(path, err)
	}
	for _, name := range names {
		if err := w.entry(path+"/"+name, upper, name, lowers, hidden); err != nil {
			return err
		}
	}
	if !hidden {
		return nil
	}
	gone, err := w.names(lowers)
	if err != nil {
		return failed(path, err)
	}
	for _, name := range names { // entry has told of these
		delete(gone, name)
	}
	for name := range gone {
		w.add(Deleted, path+"/"+name)
	}
	return nil
}

// entry adds the change of what the directory upper has under name, and the changes below it.
func (w *walker) entry(path string, upper dir, name string, lowers merged, hidden bool) error {
	now, err := w.find(upper, name)
	if err != nil {
		return failed(path, err)
	}
	was, err := w.topmost(lowers, name)
	if err != nil {
		return failed(path, err)
	}
	before := len(w.changes)
	switch now.kind {
	case absent: // it has gone since its name was read
		return nil
	case white:
		if was.kind != absent {
			w.add(Deleted, path)
		}
		return nil
	}
	if was.kind == absent {
		w.add(Added, path)
	} else if different, err := differ(was, now); err != nil {
		return failed(path, err)
	} else if different {
		w.add(Changed, path)
	}
	if !now.isDir() {
		return nil
	}
	told := len(w.changes) > before
	if err := w.directory(path, upper, name, lowers, hidden); err != nil {
		return err
	}
	if !told && len(w.changes) > before {
		w.add(Changed, path) // as what is in it has
	}
	return nil
}

// directory walks the directory that upper has under name.
func (w *walker) directory(path string, upper dir, name string, lowers merged, hidden bool) error {
	d, err := w.open(upper, name)
	if err == unix.ENOENT || err == unix.ENOTDIR { // it has gone since it was looked at
		return nil
	}
	if err != nil {
		return failed(path, err)
	}
	defer d.Close()
	if n, err := d.Self().GetxattrInto(w.xattr.Redirect, nil); err == nil && n > 0 {
		return fmt.Errorf("compare %q: it was renamed with redirect_dir=on, and what the lower layers have of it is elsewhere: rename it back in a kernel mount with that option", path)
	}
	below, err := w.below(lowers, name)
	defer below.close()
	if err != nil {
		return failed(path, err)
	}
	return w.walk(path, d, below, hidden || d.opacity == whiteout.Opaque)
}

func failed(path string, err error) error {
	return fmt.Errorf("compare %q: %w", cmp.Or(path, "/"), err)
}
