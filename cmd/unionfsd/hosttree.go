package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/ns"
)

// A container on top of the host's "/" sees the file systems that are mounted below it, too: a lower layer is one file
// system, and /home or /boot may be others. Each becomes a union of its own, with an upper layer in the container's
// directory. Those that cannot be written on the host are shown as they are, and a file that is mounted by itself, as
// container engines do with /etc/resolv.conf, is copied.

// hostMount is a file system that the host has below "/".
type hostMount struct {
	path   string
	source string // as in mountinfo
	isFile bool
	attr   int // MOUNT_ATTR_*, as on the host
}

// kernelInterfaces are the types of file systems that hold no files, but show or set something of the kernel's.
var kernelInterfaces = map[string]bool{
	"autofs": true, "binfmt_misc": true, "bpf": true, "cgroup": true, "cgroup2": true, "configfs": true, "debugfs": true,
	"devpts": true, "devtmpfs": true, "efivarfs": true, "fuse.portal": true, "fusectl": true, "hugetlbfs": true, "mqueue": true,
	"nfsd": true, "nsfs": true, "proc": true, "pstore": true, "resctrl": true, "rpc_pipefs": true, "securityfs": true,
	"selinuxfs": true, "smackfs": true, "sysfs": true, "tracefs": true,
}

// unionSources are what mountinfo has as the source of a union of directories that are seen anyway. A container must not
// have it, or it could not be unmounted as long as the container lives. A union that stands for a file system has its
// source: in a container that is on top of a host's "/", too, such are the file systems.
var unionSources = map[string]bool{"aufs": true, "fuse-overlayfs": true, "overlay": true, "unionfsd": true}

// hostMounts returns the file systems with files that can be seen below "/", those that others are mounted in first.
// What a container has of its own is not among them, /dev, /proc and /sys. Those that cannot be looked at are told to skip.
func hostMounts(skip func(path string, err error)) ([]hostMount, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	var list []hostMount
	for _, e := range entries {
		if kernelInterfaces[e.FSType] || unionSources[e.Source] || e.MountPoint == "/" || slices.ContainsFunc(ns.MountPoints(), func(own string) bool {
			return within(e.MountPoint, "/"+own)
		}) {
			continue
		}
		m, visible, err := lookAt(e)
		if err != nil {
			skip(e.MountPoint, err)
		} else if visible {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b hostMount) int { return strings.Count(a.path, "/") - strings.Count(b.path, "/") })
	return list, nil
}

// lookAt tells what is to be known of a mount, and whether its mount point leads there and not to another one.
func lookAt(e mountinfo.Entry) (m hostMount, visible bool, err error) {
	fd, err := sys.Openat(unix.AT_FDCWD, e.MountPoint, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return m, false, nil // something else is mounted above it
	}
	if err != nil {
		return m, false, err
	}
	defer unix.Close(fd)
	id, err := sys.MountID(fd)
	if err != nil || fmt.Sprint(id) != e.ID {
		return m, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return m, false, err
	}
	m = hostMount{path: e.MountPoint, source: e.Source, isFile: st.Mode&unix.S_IFMT == unix.S_IFREG}
	if !m.isFile && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return m, false, nil // a device or a socket of the host's
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return m, false, err
	}
	m.attr = mountAttr(fs)
	return m, true, nil
}

// mountAttr returns the MOUNT_ATTR_* of a mount.
func mountAttr(fs unix.Statfs_t) (attr int) {
	for flag, a := range map[int64]int{unix.ST_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.ST_NOSUID: unix.MOUNT_ATTR_NOSUID,
		unix.ST_NODEV: unix.MOUNT_ATTR_NODEV, unix.ST_NOEXEC: unix.MOUNT_ATTR_NOEXEC} {
		if int64(fs.Flags)&flag != 0 {
			attr |= a
		}
	}
	return attr
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// openHostTree opens what the host has mounted below "/", but where the user mounts something.
func (s *supervisor) openHostTree(ctx context.Context, backend string, users []mountSpec) error {
	tell := func(path string, err error) { s.app.note("%s is not shown in the container: %v", path, bare(err)) }
	list := s.parts
	if !s.nested {
		var err error
		if list, err = hostMounts(tell); err != nil {
			return err
		}
	}
	var hidden []string
	for _, m := range users {
		hidden = append(hidden, m.Target)
	}
	var mounts []ns.Mount
	for _, m := range list {
		if slices.ContainsFunc(hidden, func(dir string) bool { return within(m.path, dir) }) {
			continue
		}
		fd, err := s.openHostMount(ctx, backend, m)
		if errors.Is(err, errNotReadable) { // FUSE file systems of others, or such whose server is gone
			// It may have been unmounted meanwhile, or be no more than a directory of somebody else's.
			if !errors.Is(err, os.ErrNotExist) && m.source != "" {
				tell(m.path, err)
			}
			hidden = append(hidden, m.path)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		if s.ReadOnly {
			m.attr |= unix.MOUNT_ATTR_RDONLY
		}
		mounts = append(mounts, ns.Mount{Path: m.path, FD: fd, Attr: m.attr})
	}
	s.mounts = append(mounts, s.mounts...)
	return nil
}

// errNotReadable is about a file system that this process may not look into.
var errNotReadable = errors.New("it cannot be read")

// openHostMount returns the detached mount that shows m.
func (s *supervisor) openHostMount(ctx context.Context, backend string, m hostMount) (int, error) {
	if m.isFile {
		return s.openCopy(m)
	}
	dir, err := os.Open(m.path)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errNotReadable, bare(err))
	}
	dir.Close()
	if m.attr&unix.MOUNT_ATTR_RDONLY != 0 {
		return s.clone(m.path)
	}
	spec := layer.Spec{Lower: []string{m.path}}
	spec.Options.FsName = m.source
	return s.openBranch(ctx, backend, m.path, spec)
}

// openBranch opens a union that is to be mounted at a path in the container. Without an upper layer it gets one of its own,
// unless it is to be read only.
func (s *supervisor) openBranch(ctx context.Context, backend, at string, spec layer.Spec) (_ int, err error) {
	options := s.Spec.Options
	options.FsName, options.ReadOnly = spec.Options.FsName, spec.Options.ReadOnly
	spec.Options = options
	if spec.Upper == "" && !options.ReadOnly {
		if spec.Upper, spec.Work, err = s.home.MakeBranch(); err != nil {
			return -1, err
		}
		if err := likeRoot(spec.Upper, spec.Lower[0]); err != nil {
			return -1, err
		}
	}
	inside, err := stateInside(s.root, spec.Lower)
	if err != nil {
		return -1, err
	}
	for _, path := range inside {
		s.mask = append(s.mask, filepath.Join(at, path))
	}
	view, _, err := s.openUnion(ctx, spec, backend, len(inside) > 0)
	if errors.Is(err, errors.ErrUnsupported) && backend != "fuse" {
		s.app.verbosef("%s over FUSE, since the kernel cannot: %v", at, err)
		view, _, err = s.openUnion(ctx, spec, "fuse", false)
	}
	if err != nil {
		return -1, err
	}
	if spec.Upper != "" {
		s.branches = append(s.branches, state.Branch{Path: state.Text(at), Spec: state.Text(spec.String())})
	}
	return view.FD(), nil
}

// clone returns a detached copy of a mount, without what is mounted in it.
func (s *supervisor) clone(path string) (int, error) {
	m := mountSpec{Source: path, Target: path, MapIDs: s.users != nil && !s.nested}
	mounts, closeAll, err := openMounts([]mountSpec{m}, s.users)
	if errors.Is(err, unix.EINVAL) && m.MapIDs { // then its files are nobody's there
		m.MapIDs = false
		mounts, closeAll, err = openMounts([]mountSpec{m}, s.users)
	}
	if err != nil {
		return -1, err
	}
	before := s.closeMounts
	s.closeMounts = func() { before(); closeAll() }
	return mounts[0].FD, nil
}

// maxCopy is the size up to which a file that is mounted by itself is copied. Larger ones cannot be written.
const maxCopy = 4 << 20

// openCopy returns a mount of a copy of the file m.
func (s *supervisor) openCopy(m hostMount) (int, error) {
	from, err := os.Open(m.path)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errNotReadable, bare(err))
	}
	defer from.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return -1, err
	}
	if m.attr&unix.MOUNT_ATTR_RDONLY != 0 || st.Size > maxCopy {
		fd, err := s.clone(m.path)
		if err == nil {
			err = sys.SetMountAttr(fd, unix.MOUNT_ATTR_RDONLY, 0)
		}
		return fd, err
	}
	to, err := s.home.MakeFile()
	if err != nil {
		return -1, err
	}
	defer to.Close()
	if _, err := io.Copy(to, io.LimitReader(from, maxCopy)); err != nil {
		return -1, err
	}
	err = to.Chown(int(st.Uid), int(st.Gid))
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) { // nobody whom a user namespace can name
		return -1, err
	}
	if err := to.Chmod(os.FileMode(st.Mode & 0o777)); err != nil {
		return -1, err
	}
	return s.clone(to.Name())
}
