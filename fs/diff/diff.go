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
	w := walker{xattr: stack.Xattr, aufs: stack.Spec.Options.FUSE.AUFSMarks, changes: []Change{}}
	w.follow = stack.Spec.Options.Redirects().Follows(stack.Xattr.User())
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
	w.roots = lowers
	if err := w.walk("", upper, lowers, false); err != nil {
		return nil, err
	}
	slices.SortFunc(w.changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return w.changes, nil
}

// walker collects the changes of one stack.
type walker struct {
	xattr   layer.XattrNames
	aufs    bool   // the layers have AUFS's marks
	follow  bool   // redirects are followed
	roots   merged // of the lower layers, all of them
	changes []Change
}

func (w *walker) add(kind Kind, path string) { w.changes = append(w.changes, Change{kind, path}) }

// walk adds the changes below the directory upper, which is at path in the union ("" for the root). The lower layers
// have lowers there; hidden says that the union does not show them, since upper or a directory above it is opaque.
func (w *walker) walk(path string, upper dir, lowers merged, hidden bool) error {
	names, err := w.list(upper)
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
	if err := w.compare(path, was, now); err != nil || !now.isDir() {
		return err
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
	below, err := w.below(lowers, name)
	defer below.close()
	if err != nil {
		return failed(path, err)
	}
	target, err := w.redirect(d)
	if err != nil {
		return failed(path, err)
	}
	if target == "" {
		return w.walk(path, d, below, hidden || d.opacity == whiteout.Opaque)
	}
	shown, err := w.redirected(d, lowers, target)
	defer shown.close()
	if err != nil {
		return failed(path, err)
	}
	return w.walkMoved(path, append(merged{d}, shown...), below)
}

// walkMoved adds the changes below a directory that was renamed to path: the union shows now there, and the lower layers
// have was. Unlike walk it reads all of now, since all of it is new to the path.
func (w *walker) walkMoved(path string, now, was merged) error {
	names, err := w.names(now)
	if err != nil {
		return failed(path, err)
	}
	gone, err := w.names(was)
	if err != nil {
		return failed(path, err)
	}
	for name := range names {
		delete(gone, name)
		if err := w.movedEntry(path+"/"+name, now, was, name); err != nil {
			return err
		}
	}
	for name := range gone {
		w.add(Deleted, path+"/"+name)
	}
	return nil
}

func (w *walker) movedEntry(path string, now, was merged, name string) error {
	before := len(w.changes)
	is, err := w.topmost(now, name)
	if err != nil {
		return failed(path, err)
	}
	old, err := w.topmost(was, name)
	if err != nil {
		return failed(path, err)
	}
	if err := w.compare(path, old, is); err != nil || !is.isDir() {
		return err
	}
	told := len(w.changes) > before
	nowBelow, err := w.below(now, name)
	defer nowBelow.close()
	if err != nil {
		return failed(path, err)
	}
	wasBelow, err := w.below(was, name)
	defer wasBelow.close()
	if err != nil {
		return failed(path, err)
	}
	if err := w.walkMoved(path, nowBelow, wasBelow); err != nil {
		return err
	}
	if !told && len(w.changes) > before {
		w.add(Changed, path)
	}
	return nil
}

// compare adds the change of one object by itself.
func (w *walker) compare(path string, was, now object) error {
	if was.kind == absent {
		w.add(Added, path)
		return nil
	}
	different, err := differ(was, now)
	if err != nil {
		return failed(path, err)
	}
	if different {
		w.add(Changed, path)
	}
	return nil
}

func failed(path string, err error) error {
	return fmt.Errorf("compare %q: %w", cmp.Or(path, "/"), err)
}
