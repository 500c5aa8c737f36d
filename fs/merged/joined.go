package merged

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// With index=on the names of a lower file stay names of one file when it is copied up. A name that nothing was done with
// since is in a lower layer only, and shows the copy all the same: it is joined to it. See cow.Index.

// join returns what is shown of o, an object of a lower layer.
func (u *Union) join(o Object) (Object, error) {
	if u.index == nil || o.Kind != Present || o.IsDir() || o.Stat.Nlink < 2 {
		return o, nil
	}
	name, err := u.index.Name(o.Ref, &o.Stat)
	if err != nil || name == "" {
		return o, err
	}
	copied := Object{Kind: Present, Ref: u.index.At(name), In: o.In, joined: true}
	if err := copied.Ref.Stat(&copied.Stat); err == unix.ENOENT {
		return o, nil
	} else if err != nil {
		return o, err
	}
	return copied, nil
}

// Entries returns what the topmost of merged directories that has a name has of it.
func (u *Union) Entries(dirs Dirs) (map[string]Object, error) {
	entries := map[string]Object{}
	for i, dir := range dirs {
		names, err := u.List(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if _, has := entries[name]; has {
				continue
			}
			o, err := u.Find(dir, name)
			o.In = i
			if err == nil && dir.Layer().Pos >= 0 {
				o, err = u.join(o)
			}
			if err != nil {
				return nil, err
			}
			if o.Kind != Absent { // else it has gone since
				entries[name] = o
			}
		}
	}
	return entries, nil
}

// Joined calls f for each name that shows the copy of a lower file and is in a lower layer alone, with what it shows and
// what it showed before. All of the union is looked at, if it has such copies.
func (u *Union) Joined(f func(path string, was, now Object) error) error {
	if u.index == nil {
		return nil
	}
	return u.joined("", u.Roots(), f)
}

func (u *Union) joined(path string, dirs Dirs, f func(path string, was, now Object) error) error {
	entries, err := u.Entries(dirs)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	for name, o := range entries {
		path := path + "/" + name
		switch {
		case o.joined:
			was, err := u.Find(dirs[o.In], name)
			if err == nil {
				err = f(path, was, o)
			}
			if err != nil {
				return err
			}
		case o.IsDir():
			below, err := u.Below(dirs[o.In:], name)
			if err == nil {
				err = u.joined(path, below, f)
				below.Close()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
