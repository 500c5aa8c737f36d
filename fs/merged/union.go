package merged

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// Union is a stack that is looked into. It is good as long as the stack is open.
type Union struct {
	Upper  *Dir // nil if the union is read-only
	Lowers Dirs // all of them, the topmost first

	xattr    layer.XattrNames
	aufs     bool           // the layers have AUFS's marks
	follow   bool           // redirects are followed
	metacopy bool           // and files that have their data elsewhere
	data     []*layer.Layer // data-only

	origins *cow.Origins
	index   *cow.Index // nil if no lower file was copied up that has several names
}

// Dir is an open directory of one layer, with its mark.
type Dir struct {
	*layer.Dir
	Opacity whiteout.Opacity
}

// Dirs are directories that a union shows as one, the topmost first.
type Dirs []Dir

// Close closes them.
func (m Dirs) Close() {
	for _, d := range m {
		d.Close()
	}
}

// Object is what one layer has under a name.
type Object struct {
	Kind Kind
	Ref  layer.Ref
	Stat unix.Stat_t
	In   int // of merged directories, which one has it

	joined bool // see Joined
}

// Kind tells what an object is to the union.
type Kind int

// The kinds of objects.
const (
	Absent  Kind = iota // nothing
	White               // a whiteout
	Present             // an object of a user
)

// IsDir reports whether the object is a directory.
func (o *Object) IsDir() bool { return o.is(unix.S_IFDIR) }

// IsFile reports whether the object is a regular file.
func (o *Object) IsFile() bool { return o.is(unix.S_IFREG) }

func (o *Object) is(format uint32) bool {
	return o.Kind == Present && o.Stat.Mode&unix.S_IFMT == format
}

// New looks at the roots of a stack; [layer.OpenReadOnly] makes one that will do. Close it before the stack.
func New(stack *layer.Stack) (*Union, error) {
	o := stack.Spec.Options
	u := &Union{xattr: stack.Xattr, aufs: o.FUSE.AUFSMarks, follow: o.Redirects().Follows(stack.Xattr.User()), metacopy: o.Metacopy, data: stack.Data}
	if stack.Upper != nil {
		d, err := u.describeRoot(stack.Upper.Root)
		if err != nil {
			return nil, fmt.Errorf("read upper layer %q: %w", stack.Upper.Path, err)
		}
		u.Upper = &d
	}
	for _, l := range stack.Lowers {
		d, err := u.describeRoot(l.Root)
		if err != nil {
			return nil, fmt.Errorf("read lower layer %q: %w", l.Path, err)
		}
		u.Lowers = append(u.Lowers, d)
	}
	if u.Upper == nil || !o.Indexes() {
		return u, nil
	}
	var err error
	u.origins = cow.OpenOrigins(stack)
	if u.index, err = cow.ReadIndex(stack, u.origins); err != nil {
		u.origins.Close()
	}
	return u, err
}

// Close releases what New took.
func (u *Union) Close() {
	if u.index != nil {
		u.index.Close()
	}
	if u.origins != nil {
		u.origins.Close()
	}
}

// Roots are the roots of all layers.
func (u *Union) Roots() Dirs {
	if u.Upper == nil {
		return u.Lowers
	}
	return append(Dirs{*u.Upper}, u.Lowers...)
}
