package diff

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

// The oracle is the whole comparison: the tree of a kernel mount, after operations at random, with the tree of its
// lower layers.
func TestAgainstKernel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var options layer.Options
			if seed%2 == 1 {
				options = layer.Options{RedirectDir: layer.RedirectOn, Metacopy: true}
			}
			spec := testunion.Random(t, r, options)
			if seed%4 >= 2 {
				testunion.Link(r, spec.Lower[2], 20)
				spec.Options.Index = true
			}
			was := testunion.Mount(t, layer.Spec{Lower: spec.Lower, Options: options})
			now := testunion.Mount(t, spec)
			testunion.Change(t, r, now, 60)
			var want []string
			compare(t, was, now, "", &want)
			slices.SortFunc(want, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
			got := text(t, openStack(t, spec)) // while it is mounted
			if got != strings.Join(want, "") {
				t.Errorf("got\n%swant\n%s\nupper\n%s", got, strings.Join(want, ""), testfs.Fingerprint(spec.Upper, testfs.Options{Layer: true}))
			}
			testunion.Unmount(t, now)
			testunion.Unmount(t, was)
		})
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
