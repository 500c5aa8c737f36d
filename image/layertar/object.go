package layertar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// object makes what the entry h describes as base in the directory fd, which is at dir. What the layer has there already
// gives way: of two entries with one name the later counts.
func (u *unpacker) object(fd int, dir, base string, h *tar.Header, data io.Reader) error {
	path := join(dir, base)
	err := u.make(fd, base, h, data)
	var keep bool
	if err == unix.EEXIST {
		var covers bool
		if covers, keep, err = u.makeRoom(fd, path, base, h); err == nil && !keep {
			if err = u.make(fd, base, h, data); err == nil && covers && h.Typeflag == tar.TypeDir {
				err = u.coverAt(path)
			}
		}
	}
	if foreign, ok := errors.AsType[errForeign](err); ok {
		u.foreign[path] = string(foreign)
		return nil
	}
	delete(u.foreign, path) // this one is above it
	if err == errLost {
		u.LostDevices++
		return nil
	}
	if err != nil || h.Typeflag == tar.TypeLink {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		delete(u.implied, path)
		u.times[path] = mtime(h)
	}
	return u.describe(fd, path, base, h, !keep)
}

// coverAt makes the new directory at path opaque: it has taken the place of a whiteout.
func (u *unpacker) coverAt(path string) error {
	fd, _, err := u.open(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.makeOpaque(fd, path)
}

// errForeign is of a hard link to a path that the layers below may have, and this one has not.
type errForeign string

func (e errForeign) Error() string { return "a hard link to " + string(e) + " of another layer" }

var errLost = errors.New("a device that a user namespace cannot have")

// make makes an object without its attributes. EEXIST if the name is taken.
func (u *unpacker) make(fd int, base string, h *tar.Header, data io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(fd, base, h, data)
	case tar.TypeDir:
		return sys.Mkdirat(fd, base, uint32(h.Mode&0o777))
	case tar.TypeSymlink:
		return sys.Symlinkat(h.Linkname, fd, base)
	case tar.TypeLink:
		return u.link(fd, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.special(fd, base, h)
	}
	return fmt.Errorf("a layer has nothing of type %q", h.Typeflag)
}

func (u *unpacker) file(fd int, base string, h *tar.Header, data io.Reader) error {
	if h.Size < 0 || u.Limits.Bytes > 0 && h.Size > u.Limits.Bytes-u.Bytes { // a sparse file may be larger than its archive
		return errTooLarge
	}
	out, err := sys.Openat(fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(h.Mode&0o777))
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(&fileWriter{fd: out}, data, u.buf)
	u.Bytes += n
	if cerr := unix.Close(out); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// fileWriter writes a file from its beginning. An [os.File] takes one more system call.
type fileWriter struct {
	fd  int
	off int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	if err := sys.PwriteAll(w.fd, b, w.off); err != nil {
		return 0, err
	}
	w.off += int64(len(b))
	return len(b), nil
}

// writeOnly hides the ReadFrom of a file, which would not use our buffer.
type writeOnly struct{ io.Writer }

// link makes a hard link within the layer.
func (u *unpacker) link(fd int, base string, h *tar.Header) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	dir, name := split(target)
	from, dir, err := u.open(dir)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return errForeign(target)
	}
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	defer unix.Close(from)
	target = join(dir, name)
	if other, ok := u.foreign[target]; ok {
		return errForeign(other)
	}
	var st, old unix.Stat_t
	switch err := sys.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return errForeign(target)
	case err != nil:
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR || whiteout.Is(&st):
		return fmt.Errorf("hard link to %q, which is not a file", h.Linkname)
	}
	err = sys.Linkat(from, name, fd, base, 0)
	if err == unix.EEXIST && sys.Fstatat(fd, base, &old, unix.AT_SYMLINK_NOFOLLOW) == nil && old.Ino == st.Ino && old.Dev == st.Dev {
		return nil // it is that already; making room would remove what is to be linked
	}
	return err
}

func (u *unpacker) special(fd int, base string, h *tar.Header) error {
	mode := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
		return fmt.Errorf("device number %d:%d", h.Devmajor, h.Devminor)
	}
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if h.Typeflag == tar.TypeFifo {
		dev = 0
	}
	if h.Typeflag == tar.TypeChar && dev == 0 {
		return errors.New("overlayfs takes a character device 0:0 for a whiteout; in an archive that is .wh.NAME")
	}
	err := sys.Mknodat(fd, base, mode|0o600, int(dev))
	if err == unix.EPERM && u.Rootless && h.Typeflag != tar.TypeFifo {
		return errLost
	}
	return err
}

// makeRoom removes what an earlier entry has made of the name base, and reports whether it was a whiteout. A directory is
// kept for one of the same name.
func (u *unpacker) makeRoom(fd int, path, base string, h *tar.Header) (covers, keep bool, err error) {
	var st unix.Stat_t
	if err := sys.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return whiteout.Is(&st), false, sys.Unlinkat(fd, base, 0)
	}
	if h.Typeflag == tar.TypeDir {
		return false, true, nil
	}
	within := func(name string) bool { return name == path || strings.HasPrefix(name, path+"/") }
	maps.DeleteFunc(u.implied, func(dir string, _ bool) bool { return within(dir) })
	maps.DeleteFunc(u.foreign, func(name, _ string) bool { return within(name) })
	return false, false, bare(os.RemoveAll(sys.ProcPath(fd, base)))
}

// describe sets what the entry says of its object, at path, but for what an object has that was made just now: the owner
// first, since a change of owner drops set-id bits and capabilities.
func (u *unpacker) describe(fd int, path, base string, h *tar.Header, made bool) error {
	if h.Uid < 0 || h.Uid >= math.MaxUint32 || h.Gid < 0 || h.Gid >= math.MaxUint32 {
		return fmt.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	if !made || u.inherits || h.Uid != u.uid || h.Gid != u.gid {
		err := sys.Fchownat(fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
		if u.Rootless && (err == unix.EINVAL || err == unix.EPERM) { // nobody here has that id
			u.LostOwners++
			err = nil
		}
		if err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if err := u.xattrs(fd, path, base, h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink && !(made && u.hasMode(h)) {
		if err := sys.Fchmodat(fd, base, uint32(h.Mode&0o7777)); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if h.Typeflag == tar.TypeDir {
		return nil // its time is set when all is in it
	}
	t := mtime(h)
	if err := sys.Utimensat(fd, base, &[2]unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// hasMode reports whether make has given the object its mode. An ACL may have changed that.
func (u *unpacker) hasMode(h *tar.Header) bool {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir:
		_, acl := h.PAXRecords[xattrPrefix+aclAccess]
		return h.Mode&0o7000 == 0 && uint32(h.Mode)&u.umask == 0 && !u.inherits && !acl
	}
	return false
}

func mtime(h *tar.Header) unix.Timespec {
	return unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
}

// xattrPrefix is what stands before the name of an extended attribute in the records of an archive.
const xattrPrefix = "SCHILY.xattr."

// ofHost reports whether the attribute belongs to the machine that an object is on, and not to the object.
func ofHost(attr string) bool { return attr == "security.selinux" || attr == "system.nfs4_acl" }

// The attributes in which ACLs are.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default" // of a directory, for what is made in it
)

func (u *unpacker) xattrs(fd int, path, base string, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || ofHost(attr) {
			continue
		}
		if attr == aclDefault && h.Typeflag == tar.TypeDir {
			u.acls[path] = value // once all is made that should not inherit it
			continue
		}
		if err := u.setxattr(fd, base, attr, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) setxattr(fd int, base, attr, value string) error {
	disk := attr
	if !u.Plain {
		disk = u.Xattr.ToDisk(attr)
	}
	err := sys.Setxattr(fd, base, disk, []byte(value), 0)
	switch {
	case err == unix.EOPNOTSUPP, err == unix.EPERM && (u.Rootless || strings.HasPrefix(attr, "user.")):
		u.LostXattrs++ // user.* is for files and directories only (xattr(7))
	case err != nil:
		return fmt.Errorf("set attribute %q: %w", attr, err)
	}
	return nil
}

// bare drops the path, one below /proc/self/fd, from an error of package os.
func bare(err error) error {
	if perr, ok := errors.AsType[*os.PathError](err); ok {
		return perr.Err
	}
	return err
}
