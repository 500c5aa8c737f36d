package diff

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// The oracle is the whole comparison: the tree of a kernel mount, after operations at random, with the tree of its
// lower layers.
func TestAgainstKernel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dirs := testfs.Layers(t, 5)
			for _, dir := range dirs[1:3] {
				randomTree(t, r, dir)
			}
			var options layer.Options
			if seed%2 == 1 {
				options = layer.Options{RedirectDir: layer.RedirectOn, Metacopy: true}
			}
			spec := layer.Spec{Lower: dirs[:3], Upper: dirs[3], Work: dirs[4], Options: options}
			// The topmost lower layer is written by the kernel, so that it has whiteouts and opaque directories.
			below := mountUnion(t, layer.Spec{Lower: dirs[1:3], Upper: dirs[0], Work: dirs[4], Options: options})
			randomOps(t, r, below, 30)
			unmount(t, below)

			was := mountUnion(t, layer.Spec{Lower: spec.Lower, Options: options})
			now := mountUnion(t, spec)
			randomOps(t, r, now, 60)
			var want []string
			compare(t, was, now, "", &want)
			slices.SortFunc(want, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
			got := text(t, openStack(t, spec)) // while it is mounted
			if got != strings.Join(want, "") {
				t.Errorf("got\n%swant\n%s\nupper\n%s", got, strings.Join(want, ""), testfs.Fingerprint(spec.Upper, testfs.Options{Layer: true}))
			}
			unmount(t, now)
			unmount(t, was)
		})
	}
}

func mountUnion(t *testing.T, spec layer.Spec) string {
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

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

// randomPath is one of few, so that operations meet each other.
func randomPath(r *rand.Rand, dir string) string {
	for depth := 1 + r.IntN(3); depth > 0; depth-- {
		dir += "/" + string(rune('a'+r.IntN(3)))
	}
	return dir
}

func randomTree(t *testing.T, r *rand.Rand, dir string) {
	for range 15 {
		path := randomPath(r, dir)
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

func setTime(t *testing.T, path string, sec int64) {
	if err := os.Chtimes(path, time.Unix(sec, 500), time.Unix(sec, 500)); err != nil {
		t.Fatal(err)
	}
}

// randomOps does what users do. An operation that is not possible where it hits is none.
func randomOps(t *testing.T, r *rand.Rand, dir string, n int) {
	for range n {
		path := randomPath(r, dir)
		switch r.IntN(9) {
		case 0:
			_ = os.WriteFile(path, []byte("new"), 0o644)
		case 1:
			_ = os.Mkdir(path, 0o755)
		case 2:
			_ = os.Remove(path)
		case 3:
			_ = os.RemoveAll(path)
		case 4:
			_ = os.Chmod(path, os.FileMode(0o700+r.IntN(8)))
		case 5:
			_ = os.Rename(path, randomPath(r, dir))
		case 6:
			_ = os.Symlink("target", path)
		case 7: // a copy-up that changes nothing
			if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
				unix.Close(fd)
			}
		case 8: // made again as it was
			old, err := os.ReadFile(path)
			if err == nil && os.Remove(path) == nil && os.WriteFile(path, old, 0o644) == nil {
				setTime(t, path, 1_000_000_000)
			}
		}
	}
}

// compare adds the differences of the trees was and now below path, as addChanges in moby's pkg/archive does.
func compare(t *testing.T, was, now, path string, changes *[]string) {
	names := map[string]bool{}
	for _, dir := range []string{was + path, now + path} {
		list, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), "not a directory") {
			t.Fatal(err)
		}
		for _, e := range list {
			names[e.Name()] = true
		}
	}
	for name := range names {
		var a, b unix.Stat_t
		p := path + "/" + name
		had, has := lstat(t, was+p, &a), lstat(t, now+p, &b)
		isDir := b.Mode&unix.S_IFMT == unix.S_IFDIR
		before := len(*changes)
		switch {
		case !has:
			*changes = append(*changes, "D "+p+"\n")
			continue
		case !had:
			*changes = append(*changes, "A "+p+"\n")
		case a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev || !isDir && (a.Size != b.Size || a.Mtim != b.Mtim):
			*changes = append(*changes, "C "+p+"\n")
		}
		if !isDir {
			continue
		}
		told := len(*changes) > before
		compare(t, was, now, p, changes)
		if !told && len(*changes) > before {
			*changes = append(*changes, "C "+p+"\n")
		}
	}
}

// lstat reports whether there is something at path. A part of it may be a file.
func lstat(t *testing.T, path string, st *unix.Stat_t) bool {
	switch err := unix.Lstat(path, st); err {
	case nil:
		return true
	case unix.ENOENT, unix.ENOTDIR:
		return false
	default:
		t.Fatal(path, err)
		return false
	}
}
