package diff

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
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
func Changes(stack *layer.Stack) ([]Change, error) { return changes(stack, false) }

// Every is Changes for who is to make the changes elsewhere. It also tells of what has other extended attributes alone, as
// an ACL.
func Every(stack *layer.Stack) ([]Change, error) { return changes(stack, true) }

func changes(stack *layer.Stack, attributes bool) ([]Change, error) {
	u, err := merged.New(stack)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	w := walker{union: u, attributes: attributes, changes: []Change{}}
	if u.Upper == nil {
		return w.changes, nil
	}
	if err := w.walk("", *u.Upper, u.Lowers, false); err != nil {
		return nil, err
	}
	if err := u.Joined(w.joined); err != nil {
		return nil, err
	}
	slices.SortFunc(w.changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return w.changes, nil
}

// walker collects the changes of one stack.
type walker struct {
	union      *merged.Union
	attributes bool // they are compared, all of them
	changes    []Change
}

// joined adds the change of a name that is in a lower layer alone, and has changed with another name of its file.
func (w *walker) joined(path string, was, now merged.Object) error {
	before := len(w.changes)
	if err := w.compare(path, was, now); err != nil || len(w.changes) == before {
		return err
	}
	for path = filepath.Dir(path); path != "/"; path = filepath.Dir(path) {
		if slices.ContainsFunc(w.changes, func(c Change) bool { return c.Path == path }) {
			break
		}
		w.add(Changed, path)
	}
	return nil
}

func (w *walker) add(kind Kind, path string) { w.changes = append(w.changes, Change{kind, path}) }

// walk adds the changes below the directory upper, which is at path in the union ("" for the root). The lower layers
// have lowers there; hidden says that the union does not show them, since upper or a directory above it is opaque.
func (w *walker) walk(path string, upper merged.Dir, lowers merged.Dirs, hidden bool) error {
	names, err := w.union.List(upper)
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
	gone, err := w.union.Names(lowers)
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
func (w *walker) entry(path string, upper merged.Dir, name string, lowers merged.Dirs, hidden bool) error {
	now, err := w.union.Find(upper, name)
	if err != nil {
		return failed(path, err)
	}
	was, err := w.union.Topmost(lowers, name)
	if err != nil {
		return failed(path, err)
	}
	before := len(w.changes)
	switch now.Kind {
	case merged.Absent: // it has gone since its name was read
		return nil
	case merged.White:
		if was.Kind != merged.Absent {
			w.add(Deleted, path)
		}
		return nil
	}
	if err := w.compare(path, was, now); err != nil || !now.IsDir() {
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
func (w *walker) directory(path string, upper merged.Dir, name string, lowers merged.Dirs, hidden bool) error {
	d, err := w.union.OpenDir(upper, name)
	if err == unix.ENOENT || err == unix.ENOTDIR { // it has gone since it was looked at
		return nil
	}
	if err != nil {
		return failed(path, err)
	}
	defer d.Close()
	below, err := w.union.Below(lowers, name)
	if err != nil {
		return failed(path, err)
	}
	defer below.Close()
	target, err := w.union.Redirect(d)
	if err != nil {
		return failed(path, err)
	}
	if target == "" {
		return w.walk(path, d, below, hidden || d.Opacity == whiteout.Opaque)
	}
	shown, err := w.union.Redirected(d, lowers, target)
	if err != nil {
		return failed(path, err)
	}
	defer shown.Close()
	return w.walkMoved(path, append(merged.Dirs{d}, shown...), below)
}

// walkMoved adds the changes below a directory that was renamed to path: the union shows now there, and the lower layers
// have was. Unlike walk it reads all of now, since all of it is new to the path.
func (w *walker) walkMoved(path string, now, was merged.Dirs) error {
	names, err := w.union.Names(now)
	if err != nil {
		return failed(path, err)
	}
	gone, err := w.union.Names(was)
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

func (w *walker) movedEntry(path string, now, was merged.Dirs, name string) error {
	before := len(w.changes)
	is, err := w.union.Topmost(now, name)
	if err != nil {
		return failed(path, err)
	}
	old, err := w.union.Topmost(was, name)
	if err != nil {
		return failed(path, err)
	}
	if err := w.compare(path, old, is); err != nil || !is.IsDir() {
		return err
	}
	told := len(w.changes) > before
	nowBelow, err := w.union.Below(now, name)
	if err != nil {
		return failed(path, err)
	}
	defer nowBelow.Close()
	wasBelow, err := w.union.Below(was, name)
	if err != nil {
		return failed(path, err)
	}
	defer wasBelow.Close()
	if err := w.walkMoved(path, nowBelow, wasBelow); err != nil {
		return err
	}
	if !told && len(w.changes) > before {
		w.add(Changed, path)
	}
	return nil
}

// compare adds the change of one object by itself.
func (w *walker) compare(path string, was, now merged.Object) error {
	if was.Kind == merged.Absent {
		w.add(Added, path)
		return nil
	}
	different, err := w.differ(was, now)
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
