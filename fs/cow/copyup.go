package cow

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Copier makes copies for one mounted union.
type Copier struct {
	Work   *layer.Work
	Xattr  layer.XattrNames
	Origin *Origins // nil to write no origin

	// Override, if not empty, is the attribute that owner, mode and type of the copies are kept in.
	Override layer.Override

	// Observe, if not nil, is told of every copy: how the data of a file was copied and how many bytes it has, and how
	// long it took to make the copy.
	Observe func(method sys.CopyMethod, bytes int64, took time.Duration)
}

// Source is a lower object to copy.
type Source struct {
	Ref   layer.Ref
	Data  layer.Ref // the file that has the data, if Ref is a metacopy without them
	Layer *layer.Layer
	Stat  unix.Stat_t // as the union shows it
	Flags Flags

	Override layer.Override // the attribute that Layer keeps owner, mode and type in, if any
}

// Options narrow a copy.
type Options struct {
	// NoData makes a regular file empty, and modified now: for who is about to truncate it, and whom it does not
	// serve to be told afterwards that this failed.
	NoData bool

	// Metacopy makes a regular file that has everything but its data: the size, a hole, and the mark that says
	// that the data are in a lower layer.
	Metacopy bool

	// Origin says whether to record where the object came from. A lower file of several names must not: each
	// of its names gets a copy of its own, and they are not one file any more.
	Origin bool

	// Indexed says that the copy goes into the index, by its origin: so it must have one.
	Indexed bool

	// Cancelled, if not nil, is asked now and then whether to end the copying of data early, with EINTR.
	Cancelled func() bool
}

// Build makes a copy of src, whole but not visible. The caller publishes or discards it.
func (c *Copier) Build(src Source, opt Options) (*layer.Staged, error) {
	begin := time.Now()
	s, method, err := c.build(src, opt)
	if err == nil && c.Observe != nil {
		bytes := src.Stat.Size
		if method == sys.CopyNone {
			bytes = 0
		}
		c.Observe(method, bytes, time.Since(begin))
	}
	return s, err
}

func (c *Copier) build(src Source, opt Options) (*layer.Staged, sys.CopyMethod, error) {
	s, method, err := c.make(src, opt)
	if err != nil {
		return nil, method, err
	}
	if err := c.metadata(s.Ref(), src, opt); err != nil {
		s.Discard()
		return nil, method, err
	}
	return s, method, nil
}

// BuildLike makes an empty directory with the metadata of the upper directory dir, whole but not visible.
func (c *Copier) BuildLike(dir *layer.Dir) (*layer.Staged, error) {
	src := Source{Ref: dir.Self(), Layer: dir.Layer(), Override: c.Override}
	if err := src.Ref.Stat(&src.Stat); err != nil {
		return nil, err
	}
	if err := c.Override.Apply(src.Ref, &src.Stat); err != nil {
		return nil, err
	}
	s, _, err := c.build(src, Options{})
	return s, err
}

// make makes the object with its data, and tells how that was copied.
func (c *Copier) make(src Source, opt Options) (*layer.Staged, sys.CopyMethod, error) {
	staging := c.Work.Dir()
	kind := src.Stat.Mode & unix.S_IFMT
	if c.Override != "" && kind != c.Override.Backing(kind)&unix.S_IFMT {
		s, _, err := c.Work.StageFile(0o600)
		return s, sys.CopyNone, err
	}
	switch kind {
	case unix.S_IFREG:
		return c.makeFile(src, opt)
	case unix.S_IFDIR:
		name := c.Work.TempName()
		if err := staging.Mkdir(name, 0o700); err != nil {
			return nil, sys.CopyNone, fmt.Errorf("stage directory: %w", err)
		}
		return c.Work.StageNamed(name), sys.CopyNone, nil
	case unix.S_IFLNK:
		target, err := src.Ref.Readlink()
		if err != nil {
			return nil, sys.CopyNone, fmt.Errorf("read lower link: %w", err)
		}
		name := c.Work.TempName()
		if err := staging.Symlink(target, name); err != nil {
			return nil, sys.CopyNone, fmt.Errorf("stage symbolic link: %w", err)
		}
		return c.Work.StageNamed(name), sys.CopyNone, nil
	default: // a device, FIFO or socket, which must not be opened
		name := c.Work.TempName()
		if err := staging.Mknod(name, src.Stat.Mode&^0o7777, src.Stat.Rdev); err != nil {
			return nil, sys.CopyNone, fmt.Errorf("stage special file: %w", err)
		}
		return c.Work.StageNamed(name), sys.CopyNone, nil
	}
}

func (c *Copier) makeFile(src Source, opt Options) (*layer.Staged, sys.CopyMethod, error) {
	s, dst, err := c.Work.StageFile(0o600)
	if err != nil {
		return nil, sys.CopyNone, fmt.Errorf("stage file: %w", err)
	}
	if opt.NoData || src.Stat.Size == 0 {
		return s, sys.CopyNone, nil
	}
	if opt.Metacopy {
		if err := sys.Ftruncate(dst, src.Stat.Size); err != nil {
			s.Discard()
			return nil, sys.CopyNone, fmt.Errorf("set size: %w", err)
		}
		return s, sys.CopyNone, nil
	}
	data := src.Ref
	if src.Data != (layer.Ref{}) {
		data = src.Data
	}
	in, err := data.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		s.Discard()
		return nil, sys.CopyNone, fmt.Errorf("open lower file: %w", err)
	}
	defer unix.Close(in)
	method, err := sys.CopyData(dst, in, src.Stat.Size, opt.Cancelled)
	if err != nil {
		s.Discard()
		return nil, sys.CopyNone, fmt.Errorf("copy data: %w", err)
	}
	return s, method, nil
}

// metadata gives the copy at dst what the source has, in the order that the package comment explains.
func (c *Copier) metadata(dst layer.Ref, src Source, opt Options) error {
	st := &src.Stat
	if c.Override == "" {
		if err := dst.Chown(st.Uid, st.Gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // a link has no mode of its own
		if err := dst.Chmod(c.Override.Backing(st.Mode) & 0o7777); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := c.xattrs(dst, src); err != nil {
		return err
	}
	if c.Override != "" {
		if err := c.Override.Write(dst, st); err != nil {
			return fmt.Errorf("record owner and mode: %w", err)
		}
	}
	if opt.Metacopy {
		if err := dst.Setxattr(c.Xattr.Metacopy, nil, 0); err != nil {
			return fmt.Errorf("mark as metacopy: %w", err)
		}
	}
	if err := c.flags(dst, src); err != nil {
		return err
	}
	if opt.Origin && c.Origin != nil {
		if err := c.Origin.Record(dst, src, c.Xattr, opt.Indexed); err != nil {
			return err
		}
	}
	mtime := st.Mtim
	if opt.NoData {
		mtime.Nsec = unix.UTIME_NOW
	}
	if err := dst.Utimens([2]unix.Timespec{st.Atim, mtime}); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// xattrs copies the extended attributes, ACLs and capabilities among them, but for overlayfs's own marks.
func (c *Copier) xattrs(dst layer.Ref, src Source) error {
	names, err := src.Ref.Listxattr()
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	for _, name := range names {
		if c.Xattr.Private(name) {
			continue
		}
		to, copied := c.nameOfCopy(name, src.Override)
		if !copied {
			continue
		}
		value, err := src.Ref.Getxattr(name)
		if err == unix.ENODATA { // removed meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("read attribute %s: %w", name, err)
		}
		if err := dst.Setxattr(to, value, 0); err != nil && !ignorable(name, err) {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

// nameOfCopy is the name that the attribute of a source in a layer with override has in the copy. Where the owner and the
// mode of the copy are in an attribute, that is written anew, and an ACL would contradict it.
func (c *Copier) nameOfCopy(name string, override layer.Override) (to string, copied bool) {
	if c.Override == "" {
		return name, true
	}
	name = override.FromDisk(name)
	if layer.IsOverride(name) || strings.HasPrefix(name, "system.posix_acl_") {
		return "", false
	}
	return c.Override.ToDisk(name), true
}

// ignorable reports whether an attribute that the upper's file system does not know may be left out: one that
// decides on access may not (ovl_copy_xattr, ovl_must_copy_xattr).
func ignorable(name string, err error) bool {
	return err == unix.EOPNOTSUPP && !strings.HasPrefix(name, "security.") && !strings.HasPrefix(name, "system.posix_acl_")
}
