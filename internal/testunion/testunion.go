// Package testunion gives tests unions to read: mounted by the kernel, on layers with trees and operations at random that
// come again with the same seed.
package testunion

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// Mount mounts a union by the kernel until the end of the test and returns where.
func Mount(t testing.TB, spec layer.Spec) string {
	t.Helper()
	testfs.NeedRoot(t)
	v, err := overlayfs.Backend{}.Open(context.Background(), spec)
	if err != nil {
		testfs.Skip(t, "mount an overlay: %v", err)
	}
	defer v.Close()
	dir := testfs.TempDir(t)
	if err := v.Attach(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

// Unmount ends what Mount began.
func Unmount(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

// Random makes a union of three lower layers, the topmost of them written by the kernel, so that it has whiteouts and
// opaque directories, and returns it not mounted.
func Random(t testing.TB, r *rand.Rand, options layer.Options) layer.Spec {
	t.Helper()
	dirs := testfs.Layers(t, 6)
	for _, dir := range dirs[1:3] {
		Tree(t, r, dir)
	}
	below := Mount(t, layer.Spec{Lower: dirs[1:3], Upper: dirs[0], Work: dirs[5], Options: options})
	Change(t, r, below, 30)
	Unmount(t, below)
	return layer.Spec{Lower: dirs[:3], Upper: dirs[3], Work: dirs[4], Options: options}
}

// path is one of few, so that operations meet each other.
func path(r *rand.Rand, dir string) string {
	for depth := 1 + r.IntN(3); depth > 0; depth-- {
		dir += "/" + string(rune('a'+r.IntN(3)))
	}
	return dir
}

// Tree makes files and directories below dir.
func Tree(t testing.TB, r *rand.Rand, dir string) {
	for range 15 {
		path := path(r, dir)
		if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
			continue // a file is in the way
		}
		if r.IntN(2) == 0 {
			_ = os.Mkdir(path, 0o755)
		} else if os.WriteFile(path, []byte(path), 0o644) == nil {
			setTime(t, path, 1_000_000_000)
		}
	}
}

// Link gives files below dir further names.
func Link(r *rand.Rand, dir string, n int) {
	for range n {
		_ = os.Link(path(r, dir), path(r, dir))
	}
}

func setTime(t testing.TB, path string, sec int64) {
	if err := os.Chtimes(path, time.Unix(sec, 500), time.Unix(sec, 500)); err != nil {
		t.Fatal(err)
	}
}

// Change does what users do, n times. An operation that is not possible where it hits is none.
func Change(t testing.TB, r *rand.Rand, dir string, n int) {
	for range n {
		p := path(r, dir)
		switch r.IntN(12) {
		case 0:
			_ = os.WriteFile(p, []byte("new"), 0o644)
		case 1:
			_ = os.Mkdir(p, 0o755)
		case 2:
			_ = os.Remove(p)
		case 3:
			_ = os.RemoveAll(p)
		case 4:
			_ = os.Chmod(p, os.FileMode(0o700+r.IntN(8)))
		case 5:
			_ = os.Rename(p, path(r, dir))
		case 6:
			_ = os.Symlink("target", p)
		case 7: // a copy-up that changes nothing
			if fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
				unix.Close(fd)
			}
		case 8: // made again as it was
			old, err := os.ReadFile(p)
			if err == nil && os.Remove(p) == nil && os.WriteFile(p, old, 0o644) == nil {
				setTime(t, p, 1_000_000_000)
			}
		case 9:
			_ = os.Link(p, path(r, dir))
		case 10:
			if f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0); err == nil {
				_, _ = f.WriteString("more")
				f.Close()
			}
		case 11:
			_ = unix.Lsetxattr(p, "user.comment", []byte{byte(r.IntN(3))}, 0)
		}
	}
}
