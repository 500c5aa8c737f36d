package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
)

// absolute makes the paths of a spec independent of the working directory, which the daemon does not share.
func absolute(spec layer.Spec) (layer.Spec, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return spec, fmt.Errorf("working directory: %w", err)
	}
	abs := func(path string) string {
		if path == "" {
			return ""
		}
		if !filepath.IsAbs(path) {
			path = cwd + "/" + path // not Join: it takes a/.. for nothing even where a is a symlink
		}
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		return path // what is wrong with it, the backend says
	}
	spec.Lower, spec.Data = each(spec.Lower, abs), each(spec.Data, abs)
	spec.Upper, spec.Work = abs(spec.Upper), abs(spec.Work)
	return spec, nil
}

func each(list []string, f func(string) string) (out []string) {
	for _, s := range list {
		out = append(out, f(s))
	}
	return out
}

// mountTarget returns the real path of a directory to mount on.
func mountTarget(root state.Root, arg string) (string, error) {
	if u, ok, err := findUnion(root, arg); err != nil {
		return "", err
	} else if ok {
		return "", fmt.Errorf("a union is mounted there already (%s); unmount it first: unionfsd umount %s", u.Backend, shell(arg))
	}
	st, err := os.Stat(arg)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("the mount point does not exist; create it: mkdir -p %s", shell(arg))
	case errors.Is(err, unix.ENOTCONN):
		return "", fmt.Errorf("what served this mount point is gone; unmount it first: umount %s", shell(arg))
	case err != nil:
		return "", fmt.Errorf("mount point: %w", err)
	case !st.IsDir():
		return "", errors.New("the mount point is not a directory; name a directory")
	}
	return realPath(arg)
}

// findUnion returns the union that is mounted on the directory arg, and what path it has there.
func findUnion(root state.Root, arg string) (state.Mount, bool, error) {
	unions, err := root.Mounts()
	if err != nil {
		return state.Mount{}, false, err
	}
	top, ok, err := topMount(arg)
	if err != nil || !ok {
		return state.Mount{}, false, err
	}
	for _, u := range unions {
		if string(u.Mountpoint) == top.MountPoint && u.Dev == top.Dev {
			return u, true, nil
		}
	}
	return state.Mount{}, false, nil
}

// topMount returns the mount that covers the directory arg. It follows symlinks as mount(8) does, but does not touch
// arg itself where a mount point of that name is known: the file system there may hang or be dead.
func topMount(arg string) (mountinfo.Entry, bool, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return mountinfo.Entry{}, false, err
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return mountinfo.Entry{}, false, err
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		if e, ok := mountinfo.Top(entries, filepath.Join(parent, filepath.Base(abs))); ok {
			return e, true, nil
		}
	}
	real, err := realPath(arg)
	if err != nil {
		return mountinfo.Entry{}, false, nil // no such directory, so nothing is mounted on it
	}
	e, ok := mountinfo.Top(entries, real)
	return e, ok, nil
}

func realPath(arg string) (string, error) {
	real, err := filepath.EvalSymlinks(arg)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", fmt.Errorf("mount point: %w", err)
	}
	return real, nil
}
