package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// PackOptions say what [Pack] writes.
type PackOptions struct {
	// Whiteouts writes what hides something below the layers, in the form of an archive. Without, the layers are all
	// there is.
	Whiteouts bool

	// Root begins with an entry for the root directory.
	Root bool
}

// Pack writes the union of layers, the topmost first, as a tar archive: entries sorted by name, a directory before what
// is in it, times in whole seconds, no names of users. Sockets are left out: a tar archive has none.
func Pack(ctx context.Context, w io.Writer, layers []*layer.Layer, x layer.XattrNames, o PackOptions) error {
	p := packer{PackOptions: o, ctx: ctx, xattr: x, out: tar.NewWriter(w), links: map[file]string{}, buf: make([]byte, 256<<10)}
	var roots []*layer.Dir
	for _, l := range layers {
		roots = append(roots, l.Root)
	}
	if o.Root {
		if err := p.root(roots[0]); err != nil {
			return err
		}
	}
	hides, err := p.opaque(roots)
	if err != nil {
		return err
	}
	if err := p.directory("", roots, o.Whiteouts, hides); err != nil {
		return err
	}
	return p.out.Close()
}

type packer struct {
	PackOptions
	ctx   context.Context
	xattr layer.XattrNames
	out   *tar.Writer
	links map[file]string // files with several names, and the first of them
	buf   []byte
}

// file identifies a file.
type file struct{ dev, ino uint64 }

func (p *packer) root(dir *layer.Dir) error {
	var st unix.Stat_t
	if err := dir.Self().Stat(&st); err != nil {
		return fmt.Errorf("pack the root directory: %w", err)
	}
	return p.object(".", dir.Self(), &st)
}

// opaque reports whether the lowest of the merged directories hides what is below it.
func (p *packer) opaque(dirs []*layer.Dir) (bool, error) {
	o, err := whiteout.OpacityOf(dirs[len(dirs)-1].Self(), p.xattr)
	return o == whiteout.Opaque, err
}

// directory writes what the merged directories dirs, the topmost first, have at path. below says that there may be
// something below the layers that shows through, and hides that the directory has to hide it.
func (p *packer) directory(path string, dirs []*layer.Dir, below, hides bool) error {
	if below && hides {
		below = false
		if err := p.mark(join(path, whiteout.AUFSOpaque)); err != nil {
			return err
		}
	}
	entries, err := p.merge(dirs)
	if err != nil {
		return fmt.Errorf("pack %q: %w", "/"+path, err)
	}
	names := slices.Sorted(maps.Keys(entries))
	if below {
		for _, name := range names {
			if entries[name].white {
				if err := p.mark(join(path, layer.AUFSPrefix+name)); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range names {
		if e := entries[name]; !e.white {
			if err := p.entry(join(path, name), name, dirs[e.layer:], below); err != nil {
				return err
			}
		}
	}
	return nil
}

// found is what the topmost layer that has a name has of it.
type found struct {
	layer int // index among the merged directories
	white bool
}

// merge returns what the merged directories have.
func (p *packer) merge(dirs []*layer.Dir) (map[string]found, error) {
	entries := map[string]found{}
	for i, dir := range dirs {
		marked, err := whiteout.OpacityOf(dir.Self(), p.xattr)
		if err != nil {
			return nil, err
		}
		names, err := dir.Names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if _, has := entries[name]; has {
				continue
			}
			white, err := p.white(dir, name, marked == whiteout.Marked)
			if err == unix.ENOENT { // it has gone since
				continue
			}
			if err != nil {
				return nil, err
			}
			entries[name] = found{i, white}
		}
	}
	return entries, nil
}

func (p *packer) white(dir *layer.Dir, name string, marked bool) (bool, error) {
	var st unix.Stat_t
	if err := dir.Stat(name, &st); err != nil {
		return false, err
	}
	if whiteout.Is(&st) || !marked {
		return whiteout.Is(&st), nil
	}
	return whiteout.IsMarked(dir.At(name), &st, p.xattr)
}

// entry writes the object name of dirs[0], and if it is a directory what is in it and in those that it is merged with.
func (p *packer) entry(path, name string, dirs []*layer.Dir, below bool) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	ref := dirs[0].At(name)
	var st unix.Stat_t
	err := ref.Stat(&st)
	if err == unix.ENOENT {
		return nil
	}
	if err == nil {
		err = p.object(path, ref, &st)
	}
	if err != nil {
		return fmt.Errorf("pack %q: %w", "/"+path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	merged, hides, err := p.below(name, dirs)
	defer func() {
		for _, d := range merged {
			d.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("pack %q: %w", "/"+path, err)
	}
	return p.directory(path, merged, below, hides)
}

// below opens the directories that are merged under name, and reports whether they hide what is below the layers. The
// caller closes them, also after an error.
func (p *packer) below(name string, dirs []*layer.Dir) (merged []*layer.Dir, hides bool, err error) {
	for _, dir := range dirs {
		var st unix.Stat_t
		err := dir.Stat(name, &st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return merged, true, err
		}
		sub, err := dir.OpenDir(name)
		if err != nil {
			return merged, false, err
		}
		merged = append(merged, sub)
		if err := p.plain(sub.Self()); err != nil {
			return merged, false, err
		}
		opaque, err := p.opaque(merged)
		if err != nil || opaque {
			return merged, opaque, err
		}
	}
	return merged, false, nil
}

// plain refuses an object that is not all there is to it.
func (p *packer) plain(ref layer.Ref) error {
	for _, attr := range []string{p.xattr.Redirect, p.xattr.Metacopy} {
		switch _, err := ref.GetxattrInto(attr, nil); err {
		case nil:
			return fmt.Errorf("part of it is in another place of a lower layer (%s): copy the union that shows it", attr)
		case unix.ENODATA, unix.EOPNOTSUPP:
		default:
			return err
		}
	}
	return nil
}

// mark writes an empty file: a whiteout of the archive's form.
func (p *packer) mark(path string) error {
	return p.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o600, ModTime: time.Unix(0, 0)})
}

// object writes one object.
func (p *packer) object(path string, ref layer.Ref, st *unix.Stat_t) error {
	_, base := split(path)
	if whiteout.IsAUFS(base) {
		return errors.New("an archive cannot have a file of that name: it is a whiteout there")
	}
	h := &tar.Header{Name: path, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Sec, 0)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = ref.Readlink(); err != nil {
			return err
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
	if st.Nlink > 1 && h.Typeflag != tar.TypeDir {
		id := file{st.Dev, st.Ino}
		if first, written := p.links[id]; written {
			return p.out.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first,
				Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime})
		}
		p.links[id] = path
	}
	if err := p.xattrs(h, ref); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return p.out.WriteHeader(h)
	}
	if err := p.plain(ref); err != nil {
		return err
	}
	return p.data(h, ref)
}

func (p *packer) xattrs(h *tar.Header, ref layer.Ref) error {
	names, err := ref.Listxattr()
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for _, disk := range names {
		if p.xattr.Private(disk) || ofHost(disk) {
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
		h.PAXRecords[xattrPrefix+p.xattr.FromDisk(disk)] = string(value)
	}
	return nil
}

func (p *packer) data(h *tar.Header, ref layer.Ref) error {
	fd, err := ref.Open(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME)
	if err == unix.EPERM { // O_NOATIME is for the owner
		fd, err = ref.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(writeOnly{p.out}, io.LimitReader(f, h.Size), p.buf)
	if err == nil && n < h.Size {
		err = errors.New("it was truncated while it was read: stop who writes there, and try again")
	}
	return bare(err)
}
