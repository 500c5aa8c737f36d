package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/ns"
)

// What mounts cover is not for ordinary users to see: the kernel lets nobody clone a mount without those in it who is root
// in a user namespace only. So "/" cannot be a layer there. It is put together: a directory that has the names of "/" is
// the layer, and on each name a union is mounted, of the directory that is there. A directory in which others are mounted
// is put together in the same way.

// hostParts makes the directory skeleton, and returns what is to be mounted in it.
func hostParts(skeleton string) ([]hostMount, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	var parts []hostMount
	if err := os.Mkdir(skeleton, 0o755); err != nil {
		return nil, err
	}
	err = splitHost(entries, "/", skeleton, &parts)
	return parts, err
}

// splitHost is hostParts of the directory dir, in which others are mounted.
func splitHost(entries []mountinfo.Entry, dir, skeleton string, parts *[]hostMount) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is not for this user to read, and stays empty
	}
	for _, e := range names {
		path, at := filepath.Join(dir, e.Name()), filepath.Join(skeleton, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err == nil {
				err = os.Symlink(target, at)
			}
			if err != nil {
				return err
			}
		case e.Type().IsRegular():
			if err := copyPart(path, at); err != nil {
				return err
			}
		case e.IsDir():
			if err := splitDirectory(entries, path, at, parts); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitDirectory makes the place for the directory path, and says what is to be there.
func splitDirectory(entries []mountinfo.Entry, path, at string, parts *[]hostMount) error {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil // gone, or a file system that nobody serves any more
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := unix.Chmod(at, st.Mode&0o7777); err != nil {
		return err
	}
	e, mounted := mountinfo.Top(entries, path)
	switch {
	case slices.Contains(ns.MountPoints(), strings.TrimPrefix(path, "/")):
		return nil // the container has its own
	case mounted && (kernelInterfaces[e.FSType] || unionSources[e.Source]):
		return nil
	case slices.ContainsFunc(entries, func(o mountinfo.Entry) bool { return o.MountPoint != path && within(o.MountPoint, path) }):
		return splitHost(entries, path, at, parts)
	}
	m := hostMount{path: path}
	if mounted {
		m.source = e.Source
	}
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) == nil {
		m.attr = mountAttr(fs)
	}
	*parts = append(*parts, m)
	return nil
}

// copyPart copies a file that is beside directories in which others are mounted. What cannot be read, or is large, is left
// out.
func copyPart(path, at string) error {
	from, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer from.Close()
	st, err := from.Stat()
	if err != nil || st.Size() > maxCopy {
		return err
	}
	to, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, io.LimitReader(from, maxCopy)); err != nil {
		return fmt.Errorf("copy %q: %w", path, err)
	}
	if err := to.Chmod(st.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(at, st.ModTime(), st.ModTime())
}
