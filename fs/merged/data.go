package merged

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// Data are the bytes of a regular file, wherever they are.
type Data interface {
	io.ReaderAt
	io.Closer
}

// Open opens the data of the regular file o, which the merged directories in have under name: its own, those of a file
// below if it is a metacopy, or both if it is a lazy copy. Reading leaves the time of last access as it is, if we may ask
// for that.
func (u *Union) Open(in Dirs, name string, o Object) (Data, error) {
	s := search{u: u, in: in[o.In+1:], path: name, layer: in[o.In].Layer()}
	if o.joined { // to a metacopy, perhaps, whose data are here
		s.in, s.layer = in[o.In:], u.Upper.Layer()
	}
	defer func() { s.opened.Close() }()
	for at := o.Ref; ; {
		mark, err := u.mark(at)
		switch {
		case err != nil:
			return nil, err
		case mark == nil:
			return file(openFile(at))
		case cow.IsLazyMark(mark):
			return s.lazy(at, mark)
		case !u.metacopy:
			return nil, fmt.Errorf("it was copied up with metacopy=on, and has its data in a lower layer: name that option (%w)", unix.EPERM)
		}
		redirect, err := u.redirect(at)
		if err != nil {
			return nil, err
		}
		s.follow(redirect)
		found, err := s.next()
		if err != nil {
			return nil, err
		}
		if !found {
			return file(u.dataOnly(redirect))
		}
		at = s.found
	}
}

// mark returns the value of overlay.metacopy, nil if there is none.
func (u *Union) mark(r layer.Ref) ([]byte, error) {
	value, err := r.Getxattr(u.xattr.Metacopy)
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		return nil, nil
	case err == nil && value == nil:
		value = []byte{}
	}
	return value, err
}

func openFile(r layer.Ref) (fd int, err error) {
	fd, err = r.Open(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME)
	if err == unix.EPERM { // O_NOATIME is for the owner
		fd, err = r.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	}
	return fd, err
}

func file(fd int, err error) (Data, error) {
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "data"), nil
}

// search looks for the data of a file in one layer after the other.
type search struct {
	u     *Union
	in    Dirs         // the directories that are still to be searched
	path  string       // what to look for there: a name or, from the roots of layers, a path
	layer *layer.Layer // that of the file that was found last
	found layer.Ref    // that file

	opened Dirs // on the way
}

// follow goes on as the redirect of the file that was found last says; empty is none.
func (s *search) follow(redirect string) {
	path, absolute := strings.CutPrefix(redirect, "/")
	switch {
	case absolute:
		s.in, s.path = s.u.Lowers[s.layer.Pos+1:], path
	case redirect != "":
		s.path = redirect
	}
}

// errNoData is of a metacopy whose data cannot be found.
var errNoData = fmt.Errorf("no lower layer has its data (%w)", unix.EIO)

// next finds the next file of the name in the layers below.
func (s *search) next() (bool, error) {
	if cut := strings.LastIndexByte(s.path, '/'); cut >= 0 {
		dirs, err := s.u.At(s.in, s.path[:cut])
		if err != nil {
			return false, err
		}
		s.opened = append(s.opened, dirs...)
		s.in, s.path = dirs, s.path[cut+1:]
	}
	for i, d := range s.in {
		o, err := s.u.Find(d, s.path)
		switch {
		case err != nil:
			return false, err
		case o.Kind == Absent:
			continue
		case !o.IsFile():
			return false, errNoData
		}
		s.in, s.layer, s.found = s.in[i+1:], d.Layer(), o.Ref
		return true, nil
	}
	return false, nil
}

// dataOnly opens the file at an absolute redirect in a data-only layer (ovl_lookup_data_layer).
func (u *Union) dataOnly(redirect string) (int, error) {
	path, absolute := strings.CutPrefix(redirect, "/")
	for _, l := range u.data {
		if !absolute {
			break
		}
		fd, err := l.Root.OpenBeneath(path)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		return openFile(layer.RefFD(fd))
	}
	return -1, errNoData
}

// lazy joins the lazy copy at with the file below, of which the mark says what it must be.
func (s *search) lazy(at layer.Ref, mark []byte) (Data, error) {
	found, err := s.next()
	if err == nil && !found {
		err = errNoData
	}
	if err != nil {
		return nil, err
	}
	upper, err := openFile(at)
	if err != nil {
		return nil, err
	}
	lower, err := openFile(s.found)
	if err != nil {
		unix.Close(upper)
		return nil, err
	}
	joined, err := join(upper, lower, mark)
	if err != nil {
		unix.Close(upper)
		unix.Close(lower)
		return nil, err
	}
	return lazyData{joined}, nil
}

func join(upper, lower int, mark []byte) (*cow.Lazy, error) {
	var now, was unix.Stat_t
	if err := unix.Fstat(upper, &now); err != nil {
		return nil, err
	}
	if err := unix.Fstat(lower, &was); err != nil {
		return nil, err
	}
	if string(cow.LazyMark(&was)) != string(mark) {
		return nil, fmt.Errorf("it was not copied up completely, and the lower file has changed since (%w)", unix.EIO)
	}
	return cow.OpenLazy(upper, lower, min(was.Size, now.Size))
}

// lazyData is a lazy copy as Data.
type lazyData struct{ lazy *cow.Lazy }

func (d lazyData) ReadAt(b []byte, off int64) (int, error) {
	n, err := d.lazy.ReadAt(b, off)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

func (d lazyData) Close() error {
	d.lazy.Close()
	return nil
}
