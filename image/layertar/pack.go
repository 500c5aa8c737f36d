package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// PackOptions say what of a union [Pack] writes.
type PackOptions struct {
	// Changes writes what the upper layers of the union change, in the form of an archive, with whiteouts. Without it the
	// whole file system is written.
	Changes bool
	Base    int // with Changes: how many of the lowest layers are not among those, but what is changed

	// Dir is the path, from the root, of a directory of which all is written in place of the whole file system; symbolic
	// links are followed. If the union has no directory there, nothing is.
	Dir string
}

// Pack writes a union as a tar archive: entries sorted by name, a directory before what is in it, times in whole seconds,
// no names of users. Sockets are left out: a tar archive has none. The root directory has an entry in a whole file system
// and, among changes, where they change it.
//
// What a directory or a file of an upper layer has in another place of a layer below is written where it is shown:
// redirects, metacopies and lazy copies are resolved.
func Pack(ctx context.Context, w io.Writer, stack *layer.Stack, o PackOptions) error {
	u, err := merged.New(stack)
	if err != nil {
		return err
	}
	p := packer{PackOptions: o, ctx: ctx, union: u, xattr: stack.Xattr, base: len(stack.Lowers) - o.Base,
		out: tar.NewWriter(w), links: map[file]string{}, joined: map[string]bool{}, buf: make([]byte, 256<<10)}
	defer u.Close()
	if o.Changes {
		if err := p.findJoined(); err != nil {
			return err
		}
	}
	if o.Dir == "" {
		return p.all(u.Roots())
	}
	dirs, err := p.dir()
	if err != nil {
		return fmt.Errorf("%q: %w", o.Dir, err)
	}
	defer dirs.Close()
	return p.all(dirs)
}

// dir opens the directories at PackOptions.Dir.
func (p *packer) dir() (merged.Dirs, error) {
	path, err := p.union.Resolve(p.Dir)
	if err == nil && path == "" {
		err = errors.New("it leads to the root directory")
	}
	if err != nil {
		return nil, err
	}
	return p.union.At(p.union.Roots(), path)
}

// all writes an archive of the merged directories roots.
func (p *packer) all(roots merged.Dirs) error {
	if len(roots) == 0 {
		return p.out.Close()
	}
	hides := false
	if i := slices.IndexFunc(roots, func(d merged.Dir) bool { return d.Opacity == whiteout.Opaque }); i >= 0 {
		hides = p.Changes && i < len(p.upper(roots))
		roots = roots[:i+1]
	}
	if err := p.root(roots); err != nil {
		return fmt.Errorf("pack the root directory: %w", err)
	}
	if err := p.directory("", roots, !p.Changes, hides); err != nil {
		return err
	}
	return p.out.Close()
}

type packer struct {
	PackOptions
	ctx   context.Context
	union *merged.Union
	xattr layer.XattrNames
	base  int // position of the first layer that is not written
	out   *tar.Writer
	links map[file]string // files with several names, and the first of them
	buf   []byte

	// joined are, among changes, names that are in layers below and show a file of those to be written; and the directories
	// above them.
	joined map[string]bool
}

// file identifies a file.
type file struct{ dev, ino uint64 }

// root writes the root directory, among changes if it is not what it was.
func (p *packer) root(roots merged.Dirs) error {
	if n := len(p.upper(roots)); p.Changes && n < len(roots) {
		same, err := SameRoot(roots[0].Self(), roots[n].Self(), p.xattr)
		if same || err != nil {
			return err
		}
	}
	h, err := describe(".", roots[0].Self(), p.xattr)
	if err != nil {
		return err
	}
	return p.out.WriteHeader(h)
}

// findJoined finds the names that have changed with another name of their file.
func (p *packer) findJoined() error {
	return p.union.Joined(func(path string, _, _ merged.Object) error {
		for path = path[1:]; !p.joined[path]; path, _ = split(path) {
			p.joined[path] = true
		}
		return nil
	})
}

// upper are those of some merged directories that are in layers to be written.
func (p *packer) upper(dirs merged.Dirs) merged.Dirs {
	n := slices.IndexFunc(dirs, func(d merged.Dir) bool { return d.Layer().Pos >= p.base })
	if n < 0 {
		n = len(dirs)
	}
	return dirs[:n]
}

// directory writes what the merged directories dirs have at path. whole says that all of them are to be written, and
// nothing else shows there; hides that the archive has to say so.
func (p *packer) directory(path string, dirs merged.Dirs, whole, hides bool) error {
	if hides {
		whole = true
		if err := p.mark(join(path, whiteout.AUFSOpaque)); err != nil {
			return err
		}
	}
	entries, err := p.entries(path, dirs, whole)
	if err != nil {
		return fmt.Errorf("pack %q: %w", "/"+path, err)
	}
	names := slices.Sorted(maps.Keys(entries))
	if !whole {
		for _, name := range names {
			if entries[name].Kind == merged.White {
				if err := p.mark(join(path, layer.AUFSPrefix+name)); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range names {
		if o := entries[name]; o.Kind == merged.Present {
			if err := p.entry(join(path, name), name, dirs, o, whole); err != nil {
				return fmt.Errorf("pack %q: %w", "/"+join(path, name), err)
			}
		}
	}
	return nil
}

// entries returns what is to be written of the merged directories dirs, which are at path.
func (p *packer) entries(path string, dirs merged.Dirs, whole bool) (map[string]merged.Object, error) {
	if whole {
		return p.union.Entries(dirs)
	}
	entries, err := p.union.Entries(p.upper(dirs))
	if err != nil || !p.joined[path] {
		return entries, err
	}
	all, err := p.union.Entries(dirs)
	if err != nil {
		return nil, err
	}
	for name, o := range all {
		if p.joined[join(path, name)] {
			entries[name] = o
		}
	}
	return entries, nil
}

// entry writes the object o, which dirs have under name, and if it is a directory what is in it.
func (p *packer) entry(path, name string, dirs merged.Dirs, o merged.Object, whole bool) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if err := p.object(path, name, dirs, o); err != nil || !o.IsDir() {
		return gone(err)
	}
	below, err := p.union.Below(dirs[o.In:], name)
	if err != nil || len(below) == 0 {
		return gone(err)
	}
	defer below.Close()
	hides := false
	if upper := p.upper(dirs); !whole && o.In < len(upper) {
		if hides, err = p.hides(upper[o.In:], name); err != nil {
			return err
		}
	}
	return p.directory(path, below, whole, hides)
}

// gone is err but for that of an object that has gone since its name was read.
func gone(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// hides reports whether nothing of the layers that are not written shows in the directory name of dirs: it is opaque or
// was renamed, or there is something else below it.
func (p *packer) hides(dirs merged.Dirs, name string) (bool, error) {
	for _, dir := range dirs {
		o, err := p.union.Find(dir, name)
		if err != nil {
			return false, err
		}
		if o.Kind == merged.Absent {
			continue
		}
		if !o.IsDir() {
			return true, nil
		}
		d, err := p.union.OpenDir(dir, name)
		if err != nil {
			return false, err
		}
		redirect, err := p.union.Redirect(d)
		d.Close()
		if err != nil || redirect != "" || d.Opacity == whiteout.Opaque {
			return true, err
		}
	}
	return false, nil
}

// mark writes an empty file: a whiteout of the archive's form.
func (p *packer) mark(path string) error {
	return p.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o600, ModTime: time.Unix(0, 0)})
}

// object writes one object.
func (p *packer) object(path, name string, dirs merged.Dirs, o merged.Object) error {
	if whiteout.IsAUFS(name) {
		return errors.New("an archive cannot have a file of that name: it is a whiteout there")
	}
	if o.Stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil
	}
	h, err := header(path, o.Ref, &o.Stat)
	if err != nil {
		return err
	}
	if o.Stat.Nlink > 1 && !o.IsDir() {
		id := file{o.Stat.Dev, o.Stat.Ino}
		if first, written := p.links[id]; written {
			return p.out.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first,
				Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime})
		}
		p.links[id] = path
	}
	if err := xattrs(h, o.Ref, p.xattr); err != nil {
		return err
	}
	if !o.IsFile() {
		return p.out.WriteHeader(h)
	}
	data, err := p.union.Open(dirs, name, o)
	if err != nil {
		return err
	}
	defer data.Close()
	return p.data(h, data)
}

// describe returns the header of an object with all that belongs into it.
func describe(path string, ref layer.Ref, x layer.XattrNames) (*tar.Header, error) {
	var st unix.Stat_t
	if err := ref.Stat(&st); err != nil {
		return nil, err
	}
	h, err := header(path, ref, &st)
	if err == nil {
		err = xattrs(h, ref, x)
	}
	return h, err
}

// header returns the header of an object, without attributes.
func header(path string, ref layer.Ref, st *unix.Stat_t) (*tar.Header, error) {
	h := &tar.Header{Name: path, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Sec, 0)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = ref.Readlink(); err != nil {
			return nil, err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	}
	return h, nil
}

// xattrs adds the attributes of an object to its header.
func xattrs(h *tar.Header, ref layer.Ref, x layer.XattrNames) error {
	names, err := ref.Listxattr()
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for _, disk := range names {
		if x.Private(disk) || ofHost(disk) {
			continue
		}
		value, err := ref.Getxattr(disk)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+x.FromDisk(disk)] = string(value)
	}
	return nil
}

func (p *packer) data(h *tar.Header, data io.ReaderAt) error {
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(writeOnly{p.out}, io.NewSectionReader(data, 0, h.Size), p.buf)
	if err == nil && n < h.Size {
		err = errors.New("it was truncated while it was read: stop who writes there, and try again")
	}
	return bare(err)
}
