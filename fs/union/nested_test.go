package union_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestUpperOnUnion has an upper layer on a file system where nobody can make a whiteout that is a device: an overlay, as
// in a container, or another union of ours.
func TestUpperOnUnion(t *testing.T) {
	for _, below := range []string{"overlay", "fuse"} {
		t.Run(below, func(t *testing.T) { testUpperOnUnion(t, below) })
	}
}

func testUpperOnUnion(t *testing.T, below string) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	ground := testfs.TempDir(t)
	if below == "overlay" {
		must(t, unix.Mount("none", ground, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dirs[0], dirs[1], dirs[2])))
		t.Cleanup(func() { must(t, unix.Unmount(ground, 0)) })
	} else {
		server.Mount(t, layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}, ground)
	}
	spec := layer.Spec{Lower: dirs[3:], Upper: filepath.Join(ground, "upper"), Work: filepath.Join(ground, "work")}
	must(t, os.Mkdir(spec.Upper, 0o755))
	must(t, os.Mkdir(spec.Work, 0o755))
	testfs.Write(t, dirs[3], `
		dir d
		file d/a "a"
		file d/b "b"
		file d/c "c"
		file d/e ""
		dir d/sub
		file d/sub/f "f"
		dir d/tree
		dir d/tree/deep
		file d/tree/deep/g "g"
		dir other
		file other/h "h"
		file other/i "i"
	`)
	merged := testfs.TempDir(t)
	m := server.Mount(t, spec, merged)
	in := func(name string) string { return filepath.Join(merged, name) }

	must(t, os.Remove(in("d/a")))                     // a whiteout where there was nothing
	must(t, os.WriteFile(in("d/b"), []byte("B"), 0))  // and in the place of a file,
	must(t, os.Remove(in("d/b")))                     //
	must(t, os.RemoveAll(in("d/tree")))               // of directories,
	must(t, os.Remove(in("d/sub/f")))                 //
	must(t, os.Remove(in("d/sub")))                   //
	must(t, os.Rename(in("other/h"), in("other/hh"))) // left behind by a rename,
	must(t, os.Rename(in("other/i"), in("d/a")))      // over a whiteout, which moves to another directory
	must(t, os.Mkdir(in("d/b"), 0o755))               // replaced
	must(t, os.WriteFile(in("d/b/new"), nil, 0o644))  //
	check := func() {
		t.Helper()
		wantNames(t, "d other", merged)
		wantNames(t, "a b c e", merged, "d")
		wantNames(t, "new", merged, "d/b")
		wantNames(t, "hh", merged, "other")
		wantGone(t, merged, "d/tree")
	}
	check()
	m.Unmount()
	m = server.Mount(t, spec, merged)
	check()
	must(t, os.Rename(in("d/c"), in("other/h"))) // over a whiteout of the mount before
	must(t, os.Mkdir(in("d/tree"), 0o755))
	must(t, os.Rename(in("d/b"), in("other/i")))
	wantNames(t, "a e tree", merged, "d")
	wantNames(t, "", merged, "d/tree")
	wantNames(t, "h hh i", merged, "other")
	m.Unmount()
	m = server.Mount(t, spec, merged)
	wantNames(t, "a e tree", merged, "d")
	wantNames(t, "h hh i", merged, "other")
	must(t, os.RemoveAll(in("d")))
	wantNames(t, "other", merged)
	m.Unmount()
}
