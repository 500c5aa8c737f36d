package diff

import (
	"bytes"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
)

// differ reports whether an object has changed.
func (w *walker) differ(was, now merged.Object) (bool, error) {
	different, err := statDiffer(was, now)
	if different || err != nil || !w.attributes {
		return different, err
	}
	before, err := w.union.Attributes(was.Ref)
	if err != nil {
		return false, err
	}
	after, err := w.union.Attributes(now.Ref)
	return !maps.EqualFunc(before, after, bytes.Equal), err
}

// statDiffer is moby's statDifferent in pkg/archive.
func statDiffer(was, now merged.Object) (bool, error) {
	a, b := &was.Stat, &now.Stat
	switch {
	case a.Mode != b.Mode, a.Uid != b.Uid, a.Gid != b.Gid, a.Rdev != b.Rdev:
		return true, nil
	case now.IsDir(): // size and time of a directory say nothing of it
		return false, nil
	case a.Size != b.Size, !sameTime(a.Mtim, b.Mtim):
		return true, nil
	case a.Mode&unix.S_IFMT != unix.S_IFREG:
		return false, nil
	}
	capsWas, err := capabilities(was.Ref)
	if err != nil {
		return false, err
	}
	capsNow, err := capabilities(now.Ref)
	return !bytes.Equal(capsWas, capsNow), err
}

// sameTime compares times of modification. No nanoseconds means that they were lost on the way, as in a tar archive.
func sameTime(a, b unix.Timespec) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}

func capabilities(r layer.Ref) ([]byte, error) {
	value, err := r.Getxattr("security.capability")
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil, nil
	}
	return value, err
}
