package union

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// namesFS opens a union of many lower layers, all of which have the directory "dir". Each has one file in it, and the
// last one the file "deep"; "hole" is a whiteout in the layer 3 of a file in the layer 5.
func namesFS(t *testing.T, lowers int) (*FS, *node) {
	t.Helper()
	tmp := t.TempDir()
	var spec layer.Spec
	spec.Options.LowerImmutable = true // so that there is nothing to watch
	file := func(i int, name string) {
		if err := os.WriteFile(filepath.Join(spec.Lower[i], "dir", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range lowers {
		spec.Lower = append(spec.Lower, filepath.Join(tmp, fmt.Sprint(i)))
		if err := os.MkdirAll(filepath.Join(spec.Lower[i], "dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		file(i, fmt.Sprint("file", i))
	}
	file(lowers-1, "deep")
	file(5, "hole")
	if err := unix.Mknod(filepath.Join(spec.Lower[3], "dir/hole"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	stack, err := layer.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	fs, err := newFS(stack, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fs.close)
	e, err := fs.resolve(fs.root, "dir")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fs.nodeOf(fs.root, "dir", &e)
	if err != nil {
		t.Fatal(err)
	}
	return fs, dir
}

func TestNames(t *testing.T) {
	testfs.NeedRoot(t)
	const lowers = 40
	fs, dir := namesFS(t, lowers)
	check := func(when string, probes int) {
		t.Helper()
		for _, test := range []struct {
			name  string
			where where
			least int // layers that have to be asked
		}{{"deep", inLower, 1}, {"file7", inLower, 1}, {"hole", hiddenBelow, 1}, {"missing", absent, 0}} {
			e, err := fs.resolve(dir, test.name)
			if err != nil || e.where != test.where {
				t.Errorf("%s: %s is %v, error %v, want %v", when, test.name, e.where, err, test.where)
			}
			if probes >= 0 && e.probed != test.least+probes {
				t.Errorf("%s: %d layers were asked for %s, want %d", when, e.probed, test.name, test.least+probes)
			}
		}
	}
	check("before the names are known", -1)
	if list, err := fs.listLocked(dir, false); err != nil || len(list) != lowers+1 {
		t.Errorf("%d entries, error %v, want %d", len(list), err, lowers+1)
	}
	check("after a listing", 0)
	dir.dir.names.mark("deep")
	if e, err := fs.resolve(dir, "deep"); err != nil || e.where != inLower || e.probed != lowers {
		t.Errorf("a name that may have changed is %v, error %v, after %d layers were asked", e.where, err, e.probed)
	}
	if list, err := fs.listLocked(dir, false); err != nil || len(list) != lowers+1 {
		t.Errorf("%d entries with a name that may have changed, error %v, want %d", len(list), err, lowers+1)
	}
	dir.dir.names.forget()
	for range 10 { // enough to see that it is worth the while
		check("again", -1)
	}
	check("after many lookups", 0)
}

// A lookup of a name that is not there allocates nothing, however many layers there are.
func TestNamesAllocateNothing(t *testing.T) {
	testfs.NeedRoot(t)
	fs, dir := namesFS(t, 40)
	if _, err := fs.listLocked(dir, false); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if e, err := fs.resolve(dir, "missing"); err != nil || e.exists() {
			t.Fatal(e.where, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
