package testfs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// TempDir is t.TempDir, with symlinks resolved, and all users may get there. What is still mounted below it at the
// end of the test is unmounted, lazily, before the directory is removed, and fails the test.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // MkdirTemp's
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, path := range UnmountAll(dir) {
			t.Errorf("still mounted at the end of the test: %s", path)
		}
	})
	return dir
}

// UnmountAll unmounts everything below dir, lazily, and returns what that was, the last mount first.
func UnmountAll(dir string) []string {
	var list []string
	points := mountPoints()
	for i := len(points) - 1; i >= 0; i-- {
		if path := points[i]; path == dir || strings.HasPrefix(path, dir+"/") {
			_ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			list = append(list, path)
		}
	}
	return list
}

// Layers makes n directories that can be layers of a union, upper ones too, all on the file system of the
// temporary directory. Where that is itself an overlay, as in a container, they are on a tmpfs: overlayfs takes no
// upper layer on an overlay.
func Layers(t testing.TB, n int) []string {
	t.Helper()
	dir := TempDir(t)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		t.Logf("%s is on an overlay: the layers are on a tmpfs", dir)
		dir = Tmpfs(t)
	}
	list := make([]string, n)
	for i := range list {
		list[i] = filepath.Join(dir, "layer"+strconv.Itoa(i))
		if err := os.Mkdir(list[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// Tmpfs mounts a tmpfs for the length of the test and returns where.
func Tmpfs(t testing.TB) string {
	t.Helper()
	NeedRoot(t)
	dir := TempDir(t)
	if err := unix.Mount("unionfsd-test", dir, "tmpfs", 0, "mode=755"); err != nil {
		Skip(t, "mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount tmpfs: %v", err)
		}
	})
	return dir
}

func mountPoints() []string {
	mounts, err := mountinfo.Read()
	if err != nil {
		panic(err) // no /proc: nothing here can be tested
	}
	list := make([]string, len(mounts))
	for i, m := range mounts {
		list[i] = m.MountPoint
	}
	return list
}
