package apply

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/diff"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Changes makes the changes that [diff.Every] has found in the stack to the directory target. It calls done, if that is
// not nil, after each of them. Nobody else should write to either meanwhile.
func Changes(ctx context.Context, stack *layer.Stack, changes []diff.Change, target string, done func(diff.Change)) error {
	if stack.Spec.Options.FUSE.OverrideStat != layer.OverrideOff {
		return errors.New("owners and modes of the upper layer are in an attribute (xattr_permissions), which cannot be applied")
	}
	u, err := merged.New(stack)
	if err != nil {
		return err
	}
	defer u.Close()
	root, err := sys.Openat(unix.AT_FDCWD, target, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: target, Err: err}
	}
	defer unix.Close(root)
	if done == nil {
		done = func(diff.Change) {}
	}
	a := applier{ctx: ctx, union: u, root: root, done: done, links: map[file]string{}}
	if err := a.directory("", treeOf(changes), u.Roots(), root); err != nil {
		return err
	}
	disk, err := sys.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: target, Err: err}
	}
	defer unix.Close(disk)
	return os.NewSyscallError("syncfs", sys.Syncfs(disk))
}

// tree has the changes by the directories that they are in.
type tree struct {
	kind diff.Kind // of the path itself
	in   map[string]*tree
}

func treeOf(changes []diff.Change) *tree {
	top := &tree{}
	for _, c := range changes {
		at := top
		for name := range strings.SplitSeq(c.Path[1:], "/") {
			if at.in == nil {
				at.in = map[string]*tree{}
			}
			if at.in[name] == nil {
				at.in[name] = &tree{}
			}
			at = at.in[name]
		}
		at.kind = c.Kind
	}
	return top
}

// file identifies a file of a layer.
type file struct{ dev, ino uint64 }

type applier struct {
	ctx   context.Context
	union *merged.Union
	root  int // the target
	done  func(diff.Change)
	links map[file]string // files with several names, and the first of them that was made
}

// directory makes the changes below the directory target, which is at path. The union has dirs there.
func (a *applier) directory(path string, t *tree, dirs merged.Dirs, target int) error {
	entries, err := a.union.Entries(dirs)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	for name, change := range t.in {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		path := path + "/" + name
		if err := a.entry(path, name, change, dirs, entries[name], target); err != nil {
			return failed(path, err)
		}
		if change.kind != "" {
			a.done(diff.Change{Kind: change.kind, Path: path})
		}
	}
	return nil
}

// failed names the path that an error is about, unless that is told.
func failed(path string, err error) error {
	if told, ok := errors.AsType[*changeError](err); ok {
		return told
	}
	return &changeError{path, err}
}

type changeError struct {
	path string
	err  error
}

func (e *changeError) Error() string { return fmt.Sprintf("%q: %v", e.path, e.err) }
func (e *changeError) Unwrap() error { return e.err }

// entry makes the change of a name, which the union shows as o, and those below it.
func (a *applier) entry(path, name string, t *tree, dirs merged.Dirs, o merged.Object, target int) error {
	switch {
	case t.kind == diff.Deleted:
		return remove(target, name)
	case o.Kind != merged.Present:
		return errors.New("it is not there any more: end who changes the union, and try again")
	case !o.IsDir():
		return a.object(path, name, dirs, o, target)
	}
	if err := makeDir(target, name); err != nil {
		return err
	}
	fd, err := sys.Openat(target, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	below, err := a.union.Below(dirs[o.In:], name)
	if err != nil {
		return err
	}
	defer below.Close()
	if err := a.directory(path, t, below, fd); err != nil {
		return err
	}
	return a.metadata(layer.RefFD(fd), o) // last, for the times, and since it may be nobody's to write
}

// makeDir makes a directory, unless it is one, in the place of whatever has the name.
func makeDir(dir int, name string) error {
	var st unix.Stat_t
	err := sys.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil
	case err == nil:
		err = sys.Unlinkat(dir, name, 0)
	case err == unix.ENOENT:
		err = nil
	}
	if err != nil {
		return err
	}
	return sys.Mkdirat(dir, name, 0o700)
}

// object makes what is not a directory, or one more name of it, and puts it at name.
func (a *applier) object(path, name string, dirs merged.Dirs, o merged.Object, target int) error {
	temp := tempName()
	err := a.make(temp, path, name, dirs, o, target)
	if err == nil {
		err = replace(target, temp, name)
	}
	if err != nil {
		_ = sys.Unlinkat(target, temp, 0)
	}
	return err
}

// replace renames temp to name; a directory that has the name goes first.
func replace(dir int, temp, name string) error {
	err := sys.Renameat2(dir, temp, dir, name, 0)
	if err != unix.EISDIR && err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	if err := sys.Renameat2(dir, temp, dir, name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return removeAll(dir, temp)
}

// remove takes a name away with all that is in it; what is not there is no error.
func remove(dir int, name string) error {
	temp := tempName()
	err := sys.Renameat2(dir, name, dir, temp, unix.RENAME_NOREPLACE)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	return removeAll(dir, temp)
}

func removeAll(dir int, name string) error {
	root, err := os.OpenRoot(sys.ProcPath(dir, ""))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

func tempName() string { return ".unionfsd-apply-" + strings.ToLower(rand.Text()[:12]) }
