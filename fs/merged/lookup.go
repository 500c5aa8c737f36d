package merged

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

func (u *Union) describe(d *layer.Dir) (Dir, error) {
	opacity, err := whiteout.OpacityOfDir(d, u.xattr, u.aufs)
	return Dir{d, opacity}, err
}

// describeRoot is describe for the root of a layer.
func (u *Union) describeRoot(d *layer.Dir) (Dir, error) {
	opacity, err := whiteout.OpacityOfRoot(d, u.xattr, u.aufs)
	return Dir{d, opacity}, err
}

// OpenDir opens the directory that parent has under name. The caller closes it.
func (u *Union) OpenDir(parent Dir, name string) (Dir, error) {
	d, err := parent.OpenDir(name)
	if err != nil {
		return Dir{}, err
	}
	described, err := u.describe(d)
	if err == nil {
		var hidden bool
		if hidden, err = u.hidden(parent, name); hidden {
			described.Opacity = whiteout.Opaque
		}
	}
	if err != nil {
		d.Close()
	}
	return described, err
}

// Find looks for name in one directory.
func (u *Union) Find(d Dir, name string) (Object, error) {
	o := Object{Ref: d.At(name)}
	err := o.Ref.Stat(&o.Stat)
	if err == unix.ENOENT {
		hidden, err := u.hidden(d, name)
		if hidden {
			o.Kind = White
		}
		return o, err
	}
	if err != nil {
		return o, err
	}
	is := whiteout.Is(&o.Stat)
	if d.Opacity == whiteout.Marked && !is {
		if is, err = whiteout.IsMarked(o.Ref, &o.Stat, u.xattr); err != nil {
			return o, err
		}
	}
	o.Kind = Present
	if is {
		o.Kind = White
	}
	return o, nil
}

// hidden reports whether an AUFS mark beside it hides what the layers below d have of name.
func (u *Union) hidden(d Dir, name string) (bool, error) {
	if !u.aufs {
		return false, nil
	}
	return whiteout.HiddenByAUFS(d.Dir, name)
}

// List returns the names that the directory has something for, be it a whiteout.
func (u *Union) List(d Dir) ([]string, error) {
	names, err := d.Names()
	if err != nil || !u.aufs {
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

// Topmost returns what the merged directories show of name: an object that is absent or present.
func (u *Union) Topmost(in Dirs, name string) (Object, error) {
	for i, d := range in {
		switch o, err := u.Find(d, name); {
		case err != nil || o.Kind == Present:
			o.In = i
			return o, err
		case o.Kind == White:
			return Object{}, nil
		}
	}
	return Object{}, nil
}

// Below opens the directories that lowers merge under name; none if they show no directory there. Like ovl_lookup.
// The caller closes them.
func (u *Union) Below(lowers Dirs, name string) (m Dirs, err error) {
	defer func() {
		if err != nil {
			m.Close()
			m = nil
		}
	}()
	for i, parent := range lowers {
		d, stop, err := u.step(parent, name)
		if err != nil || stop {
			return m, err
		}
		if d.Dir == nil {
			continue
		}
		m = append(m, d)
		if d.Opacity == whiteout.Opaque {
			return m, nil
		}
		target, err := u.Redirect(d)
		if err != nil {
			return m, err
		}
		if target != "" {
			more, err := u.Redirected(d, lowers[i+1:], target)
			return append(m, more...), err
		}
	}
	return m, nil
}

// step opens the directory name of parent. It returns none if there is nothing of the name, and stop if there is something
// that hides what is below it.
func (u *Union) step(parent Dir, name string) (d Dir, stop bool, err error) {
	o, err := u.Find(parent, name)
	if err != nil || o.Kind == Absent {
		return Dir{}, false, err
	}
	if !o.IsDir() {
		return Dir{}, true, nil
	}
	d, err = u.OpenDir(parent, name)
	return d, false, err
}

// Redirect returns where what d is merged with is to be looked for, if d was renamed: a name, or a path from the root of
// the union. EPERM if redirects are not followed: then the union does not show d either.
func (u *Union) Redirect(d Dir) (string, error) { return u.redirect(d.Self()) }

func (u *Union) redirect(r layer.Ref) (string, error) {
	value, err := r.Getxattr(u.xattr.Redirect)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return "", nil
	}
	if err == nil && !u.follow {
		err = fmt.Errorf("it was renamed with redirect_dir=on, and its lower layers have it elsewhere: name redirect_dir=follow (%w)", unix.EPERM)
	}
	return string(value), err
}

// Redirected opens the directories that d, which was renamed, is merged with: under another name in the directories
// below, or under a path in the layers below. The caller closes them.
func (u *Union) Redirected(d Dir, below Dirs, target string) (Dirs, error) {
	path, absolute := strings.CutPrefix(target, "/")
	if !absolute {
		return u.Below(below, target)
	}
	return u.At(u.Lowers[d.Layer().Pos+1:], path)
}

// At opens the directories that are merged at a path, no part of which is a symbolic link, below the directories in; none if
// there is no directory. The caller closes them.
func (u *Union) At(in Dirs, path string) (Dirs, error) {
	m := in
	for i, part := range strings.Split(path, "/") {
		next, err := u.Below(m, part)
		for _, d := range next { // its parent is closed here, so that it could not be opened again
			err = errors.Join(err, d.Pin())
		}
		if i > 0 {
			m.Close()
		}
		if err != nil {
			next.Close()
			return nil, err
		}
		m = next
	}
	return m, nil
}

// maxLinks is how many symbolic links a path may lead through (MAXSYMLINKS).
const maxLinks = 40

// Resolve returns where a path leads, with the union as root, without symbolic links. The last part of it need not exist.
func (u *Union) Resolve(path string) (string, error) {
	var done []string
	links := 0
	for todo := strings.Split(path, "/"); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		target, err := u.readlink(done, name)
		if err != nil {
			return "", err
		}
		if target == "" {
			done = append(done, name)
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		if target[0] == '/' {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return strings.Join(done, "/"), nil
}

// readlink returns the target of the symbolic link name in the directory of the union with the given parts; none if it is
// something else.
func (u *Union) readlink(parts []string, name string) (string, error) {
	dirs := u.Roots()
	if len(parts) > 0 {
		var err error
		if dirs, err = u.At(dirs, strings.Join(parts, "/")); err != nil {
			return "", err
		}
		defer dirs.Close()
	}
	o, err := u.Topmost(dirs, name)
	if err != nil || !o.is(unix.S_IFLNK) {
		return "", err
	}
	return o.Ref.Readlink()
}

// Names returns all names that the merged directories show.
func (u *Union) Names(lowers Dirs) (map[string]bool, error) {
	shown := make(map[string]bool)
	decided := make(map[string]bool) // by a layer above
	for _, d := range lowers {
		names, err := u.List(d)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if decided[name] {
				continue
			}
			o, err := u.Find(d, name)
			if err != nil {
				return nil, err
			}
			decided[name] = true
			if o.Kind == Present {
				shown[name] = true
			}
		}
	}
	return shown, nil
}
