package layertar

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
)

// Depends reports whether what the layer shows above others may depend on them: see [Complete].
func (c *Contents) Depends() bool { return !c.Root || len(c.Implied) > 0 || len(c.Foreign) > 0 }

// Complete makes what a layer lacks that depends on the layers below it, as a directory called name in the upper layer of
// stack, to be stacked directly above the layer. It holds the layer's implied directories and its root, with owner, mode,
// attributes and times of those below, and its hard links to files below, with those files. It is made by copying up. The
// topmost lower layer of stack is the layer, of which c tells. Nothing is made if it lacks nothing.
//
// It is an error if a hard link leads to what no layer has.
func Complete(stack *layer.Stack, c Contents, name string) error {
	u, err := merged.New(stack)
	if err != nil {
		return err
	}
	defer u.Close()
	if err := stack.Work.Prepare(); err != nil {
		return err
	}
	m := completer{union: u, upper: stack.Upper.Root, name: name, contents: c, copier: cow.Copier{Work: stack.Work, Xattr: stack.Xattr},
		foreign: map[string]string{}, made: map[string]directory{}, copies: map[file]layer.Ref{}}
	defer m.close()
	for _, l := range c.Foreign {
		m.foreign[l.Name] = l.Target
	}
	if err := m.all(); err != nil {
		return err
	}
	return m.times()
}

type completer struct {
	union    *merged.Union
	upper    *layer.Dir
	name     string
	contents Contents
	foreign  map[string]string
	copier   cow.Copier
	made     map[string]directory // by path
	copies   map[file]layer.Ref   // of files of lower layers
}

// directory is one that was made.
type directory struct {
	*layer.Dir
	times [2]unix.Timespec
}

func (m *completer) close() {
	for _, d := range m.made {
		d.Close()
	}
}

func (m *completer) all() error {
	if lowers := m.union.Lowers; !m.contents.Root && len(lowers) > 1 {
		same, err := SameRoot(lowers[0].Self(), lowers[1].Self(), m.copier.Xattr)
		if err != nil {
			return err
		}
		if !same {
			if _, err := m.directory(""); err != nil {
				return err
			}
		}
	}
	for _, path := range m.contents.Implied {
		dirs, err := m.union.At(m.union.Lowers, path)
		if err == nil {
			dirs.Close()
			if len(dirs) > 1 {
				_, err = m.directory(path)
			}
		}
		if err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
	}
	for _, l := range m.contents.Foreign {
		if err := m.link(l); err != nil {
			return fmt.Errorf("hard link %q to %q: %w", l.Name, l.Target, err)
		}
	}
	return nil
}

// directory makes the directory at path, if it is not made yet, and those above it.
func (m *completer) directory(path string) (*layer.Dir, error) {
	if d, ok := m.made[path]; ok {
		return d.Dir, nil
	}
	parent, base := m.upper, m.name
	dirs := m.union.Lowers
	if path != "" {
		var above string
		var err error
		above, base = split(path)
		if parent, err = m.directory(above); err != nil {
			return nil, err
		}
		dirs, err = m.union.At(dirs, path)
		if err != nil {
			return nil, err
		}
		defer dirs.Close()
		if len(dirs) == 0 {
			return nil, unix.ENOTDIR
		}
	}
	of := dirs[0]
	if len(dirs) > 1 && m.implied(path) {
		of = dirs[1]
	}
	src := cow.Source{Ref: of.Self(), Layer: of.Layer()}
	if err := src.Ref.Stat(&src.Stat); err != nil {
		return nil, err
	}
	if err := m.copyUp(src, parent, base); err != nil {
		return nil, err
	}
	d, err := parent.OpenDir(base)
	if err != nil {
		return nil, err
	}
	m.made[path] = directory{d, [2]unix.Timespec{src.Stat.Atim, src.Stat.Mtim}}
	return d, nil
}

func (m *completer) implied(path string) bool {
	if path == "" {
		return !m.contents.Root
	}
	_, found := slices.BinarySearch(m.contents.Implied, path)
	return found
}

func (m *completer) copyUp(src cow.Source, dir *layer.Dir, name string) error {
	staged, err := m.copier.Build(src, cow.Options{})
	if err != nil {
		return err
	}
	defer staged.Discard()
	return staged.Publish(dir, name, layer.Add)
}

// link makes a hard link to a file of the layers below, which is copied up, as link(2) does in a union.
func (m *completer) link(l Link) error {
	dir, base := split(l.Name)
	at, err := m.directory(dir)
	if err != nil {
		return err
	}
	return m.topmost(m.union.Lowers[1:], l.Target, func(in *layer.Layer, o merged.Object) error {
		switch {
		case o.Kind != merged.Present:
			return fmt.Errorf("neither the layer nor those below it have that file")
		case o.IsDir():
			return fmt.Errorf("that is a directory in a layer below")
		}
		id := file{o.Stat.Dev, o.Stat.Ino}
		if copied, ok := m.copies[id]; ok {
			err = copied.LinkTo(at, base)
		} else {
			err = m.copyUp(cow.Source{Ref: o.Ref, Layer: in, Stat: o.Stat}, at, base)
			m.copies[id] = at.At(base)
		}
		if err != nil {
			return err
		}
		return m.linkTarget(id, l.Target)
	})
}

// linkTarget gives the copy of the lower file id the name that the file has, if that still shows it.
func (m *completer) linkTarget(id file, target string) error {
	if _, ok := m.foreign[target]; ok {
		return nil // it becomes a link to something else
	}
	return m.topmost(m.union.Lowers, target, func(_ *layer.Layer, o merged.Object) error {
		if (file{o.Stat.Dev, o.Stat.Ino}) != id {
			return nil
		}
		dir, base := split(target)
		at, err := m.directory(dir)
		if err != nil {
			return err
		}
		if err := m.copies[id].LinkTo(at, base); err != unix.EEXIST { // there for another link to it
			return err
		}
		return nil
	})
}

// topmost calls f with what the layers in show at path, and the layer that has it.
func (m *completer) topmost(in merged.Dirs, path string, f func(*layer.Layer, merged.Object) error) error {
	dir, base := split(path)
	if dir != "" {
		var err error
		in, err = m.union.At(in, dir)
		if err != nil {
			return err
		}
		defer in.Close()
	}
	o, err := m.union.Topmost(in, base)
	if err != nil {
		return err
	}
	if o.Kind == merged.Absent {
		return f(nil, o)
	}
	return f(in[o.In].Layer(), o)
}

// times gives the directories their times, when all is in them.
func (m *completer) times() error {
	for path, d := range m.made {
		if err := d.Self().Utimens(d.times); err != nil {
			return fmt.Errorf("time of directory %q: %w", path, err)
		}
	}
	return nil
}

// SameRoot reports whether two root directories have the same owner, mode and attributes. Their times say nothing: they
// change with whatever is made there.
func SameRoot(a, b layer.Ref, x layer.XattrNames) (bool, error) {
	h, err := describe(".", a, x)
	if err != nil {
		return false, err
	}
	was, err := describe(".", b, x)
	if err != nil {
		return false, err
	}
	return sameHeader(h, was), nil
}

func sameHeader(a, b *tar.Header) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && maps.Equal(a.PAXRecords, b.PAXRecords)
}
