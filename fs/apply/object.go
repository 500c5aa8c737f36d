package apply

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/merged"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// make makes the object o, which the union has under name in dirs, with all that belongs to it, as temp in target.
func (a *applier) make(temp, path, name string, dirs merged.Dirs, o merged.Object, target int) error {
	id := file{o.Stat.Dev, o.Stat.Ino}
	if o.Stat.Nlink > 1 {
		if first, made := a.links[id]; made {
			return a.link(first, target, temp)
		}
	}
	var err error
	switch o.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = a.regular(temp, name, dirs, o, target)
	case unix.S_IFLNK:
		var to string
		if to, err = o.Ref.Readlink(); err == nil {
			err = sys.Symlinkat(to, target, temp)
		}
	default:
		err = sys.Mknodat(target, temp, o.Stat.Mode&unix.S_IFMT|0o600, int(o.Stat.Rdev))
	}
	if err != nil {
		return err
	}
	fd, err := sys.Openat(target, temp, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := a.metadata(layer.RefFD(fd), o); err != nil {
		return err
	}
	if o.Stat.Nlink > 1 {
		a.links[id] = path
	}
	return nil
}

// link gives the file that was made at path one more name.
func (a *applier) link(path string, target int, name string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := sys.Openat2(a.root, path[1:], &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return sys.Linkat(unix.AT_FDCWD, sys.ProcPath(fd, ""), target, name, unix.AT_SYMLINK_FOLLOW)
}

// regular makes a regular file with its data.
func (a *applier) regular(temp, name string, dirs merged.Dirs, o merged.Object, target int) error {
	data, err := a.union.Open(dirs, name, o)
	if err != nil {
		return err
	}
	defer data.Close()
	fd, err := sys.Openat(target, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), temp)
	defer out.Close()
	cancelled := func() bool { return a.ctx.Err() != nil }
	if in, whole := data.(*os.File); whole {
		_, err = sys.CopyData(fd, int(in.Fd()), o.Stat.Size, cancelled)
		return err
	}
	return copySparse(out, io.NewSectionReader(data, 0, o.Stat.Size), o.Stat.Size)
}

// copySparse writes size bytes, and leaves a hole where there is a block of zeros.
func copySparse(out *os.File, in io.Reader, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	const block = 64 << 10
	buf, zeros := make([]byte, block), make([]byte, block)
	for off := int64(0); off < size; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := out.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if off < size {
				return errors.New("it was truncated while it was read: end who changes the union, and try again")
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// metadata gives dst owner, attributes, mode and times of o, in this order: a new owner takes capabilities and set-id bits
// away, and all of them change times.
func (a *applier) metadata(dst layer.Ref, o merged.Object) error {
	st := &o.Stat
	if err := dst.Chown(st.Uid, st.Gid); err != nil {
		return fmt.Errorf("set its owner: %w", err)
	}
	if err := a.attributes(dst, o.Ref); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // a link has no mode of its own
		if err := dst.Chmod(st.Mode & 0o7777); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	if err := dst.Utimens([2]unix.Timespec{st.Atim, st.Mtim}); err != nil {
		return fmt.Errorf("set its times: %w", err)
	}
	return nil
}

// attributes makes the extended attributes of dst those that the union shows of src. What makes dst a part of a layer itself
// is not of its users.
func (a *applier) attributes(dst, src layer.Ref) error {
	shown, err := a.union.Attributes(src)
	if err != nil {
		return fmt.Errorf("read its attributes: %w", err)
	}
	has, err := a.union.Attributes(dst)
	if err != nil {
		return fmt.Errorf("read its attributes: %w", err)
	}
	for name := range has {
		if _, keep := shown[name]; keep || ofPlace(name) {
			continue
		}
		if err := dst.Removexattr(name); err != nil && err != unix.ENODATA {
			return fmt.Errorf("remove its attribute %s: %w", name, err)
		}
	}
	for name, value := range shown {
		if old, same := has[name]; same && bytes.Equal(old, value) || ofPlace(name) {
			continue
		}
		if err := dst.Setxattr(name, value, 0); err != nil {
			return fmt.Errorf("set its attribute %s: %w", name, err)
		}
	}
	return nil
}

// ofPlace reports whether where an object is decides on an attribute of it.
func ofPlace(attr string) bool {
	return attr == "security.selinux" || attr == "security.ima" || attr == "security.evm"
}
