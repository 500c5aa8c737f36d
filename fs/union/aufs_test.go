package union_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func names(t *testing.T, dir ...string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir...))
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func wantNames(t *testing.T, want string, dir ...string) {
	t.Helper()
	if got := names(t, dir...); got != want {
		t.Errorf("%s has %q, want %q", filepath.Join(dir...), got, want)
	}
}

func wantGone(t *testing.T, path ...string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(path...)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v, want that it does not exist", filepath.Join(path...), err)
	}
}

// aufsUnion mounts lower layers of the given content, the topmost first, with an upper layer or without.
func aufsUnion(t *testing.T, s *mounttest.Server, writable bool, lowers ...string) (merged string, spec layer.Spec) {
	t.Helper()
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, len(lowers)+2)
	for i, text := range lowers {
		testfs.Write(t, dirs[i+2], text)
	}
	spec.Lower = dirs[2:]
	if writable {
		spec.Upper, spec.Work = dirs[0], dirs[1]
	}
	spec.Options.FUSE.AUFSMarks = true
	merged = testfs.TempDir(t)
	s.Mount(t, spec, merged)
	return merged, spec
}

func TestAUFSMarksAreRead(t *testing.T) {
	for _, lookFirst := range []bool{true, false} {
		merged, _ := aufsUnion(t, server, false, `
			file .wh.gone
			dir d
			file d/.wh..wh..opq
			file d/new
			file .wh.again
			dir again
			file again/new
			file .wh.file
			file file "new"
			file .wh..wh.plnk
			dir m
			file m/.wh.x`, `
			dir m
			file m/x
			file m/.wh.y
			file m/z`, `
			file gone
			dir d
			file d/old
			dir again
			file again/old
			file file "old"
			file kept
			dir m
			file m/x
			file m/y`)
		look := func() {
			for _, gone := range []string{"gone", "d/old", "again/old", "m/x", "m/y", ".wh.gone", ".wh..wh.plnk", "d/.wh..wh..opq"} {
				wantGone(t, merged, gone)
			}
			for _, there := range []string{"d/new", "again/new", "kept", "m/z"} {
				must(t, unix.Access(filepath.Join(merged, there), unix.F_OK))
			}
			if got, err := os.ReadFile(merged + "/file"); err != nil || string(got) != "new" {
				t.Errorf("file: %q, %v", got, err)
			}
		}
		list := func() {
			wantNames(t, "again d file kept m", merged)
			wantNames(t, "new", merged, "d")
			wantNames(t, "new", merged, "again")
			wantNames(t, "z", merged, "m")
		}
		if lookFirst {
			look()
		}
		list()
		look()
	}
}

func TestAUFSNamesCannotBeMade(t *testing.T) {
	merged, spec := aufsUnion(t, server, true, `file f "x"
		dir d`)
	bad := merged + "/.wh.f"
	for what, err := range map[string]error{
		"open":    os.WriteFile(bad, nil, 0o644),
		"mkdir":   unix.Mkdir(bad, 0o755),
		"symlink": unix.Symlink("f", bad),
		"mknod":   unix.Mknod(bad, unix.S_IFIFO, 0),
		"link":    unix.Link(merged+"/f", bad),
		"rename":  unix.Rename(merged+"/f", bad),
		"into d":  unix.Rename(merged+"/f", merged+"/d/.wh..wh..opq"),
	} {
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v, want EINVAL", what, err)
		}
	}
	wantNames(t, "d f", merged)
	wantNames(t, "", spec.Upper)

	plain, _, _ := peerUnion(t, "", "")
	must(t, os.WriteFile(plain+"/.wh.f", nil, 0o644))
	wantNames(t, ".wh.f", plain)
}

func TestAUFSMarksAreHiddenByWrites(t *testing.T) {
	merged, spec := aufsUnion(t, server, true, `
		file .wh.f
		file .wh.d
		file g "g"`, `
		file f "old"
		dir d
		file d/old`)
	wantNames(t, "g", merged)
	must(t, os.WriteFile(merged+"/f", []byte("new"), 0o644))
	must(t, os.Mkdir(merged+"/d", 0o755))
	wantNames(t, "", merged, "d")
	must(t, os.Remove(merged+"/d"))
	must(t, os.Remove(merged+"/f"))
	must(t, os.Rename(merged+"/g", merged+"/d"))
	wantNames(t, "d", merged)
	wantNames(t, "d g", spec.Upper) // g is a whiteout
}

// An upper layer that another program wrote with these marks.
func TestAUFSMarksInTheUpper(t *testing.T) {
	dirs := testfs.Layers(t, 3)
	testfs.Write(t, dirs[0], "file .wh.f\nfile .wh.dir\ndir d\nfile d/.wh..wh..opq\nfile d/new")
	testfs.Write(t, dirs[2], "file f\ndir d\nfile d/old\ndir dir\nfile dir/old\ndir empty")
	spec := layer.Spec{Upper: dirs[0], Work: dirs[1], Lower: dirs[2:]}
	spec.Options.FUSE.AUFSMarks = true
	spec.Options.RedirectDir = layer.RedirectOn
	merged := testfs.TempDir(t)
	m := server.Mount(t, spec, merged)
	wantNames(t, "d empty", merged)
	wantNames(t, "new", merged, "d")
	wantGone(t, merged, "f")
	wantGone(t, merged, "d/old")
	must(t, os.Mkdir(merged+"/dir", 0o755))
	wantNames(t, "", merged, "dir")
	must(t, os.Remove(merged+"/dir"))
	// Under this name its lower part would be hidden.
	if err := os.Rename(merged+"/empty", merged+"/dir"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename: %v, want EXDEV", err)
	}
	must(t, os.WriteFile(merged+"/f", []byte("new"), 0o644))
	must(t, os.Remove(merged+"/d/new"))
	must(t, os.Remove(merged+"/d"))
	m.Unmount()
	server.Mount(t, spec, merged)
	wantNames(t, "empty f", merged)
}

// Marks that appear and go in a layer while it is mounted count within 100 ms, also in a directory that had none.
func TestAUFSMarksWhileMounted(t *testing.T) {
	const soon = 100 * time.Millisecond
	merged, spec := aufsUnion(t, server, false, "dir d", "dir d\nfile d/f\nfile d/g")
	mark := spec.Lower[0] + "/d/.wh.f"
	for range 3 {
		wantNames(t, "f g", merged, "d")
		must(t, unix.Access(merged+"/d/f", unix.F_OK))
		must(t, os.WriteFile(mark, nil, 0o644))
		time.Sleep(soon)
		wantGone(t, merged, "d/f")
		wantNames(t, "g", merged, "d")
		must(t, os.Remove(mark))
		time.Sleep(soon)
		must(t, unix.Access(merged+"/d/f", unix.F_OK))
	}
}

// noDevices serves unions whose layers seem to be on a file system without device nodes.
type noDevices struct{ union.Backend }

func (b noDevices) Open(ctx context.Context, spec layer.Spec) (mount.View, error) {
	sys.Inject(func(call string, done bool) error {
		if call == "mknodat" && !done {
			return unix.EPERM
		}
		return nil
	})
	return b.Backend.Open(ctx, spec)
}

func (noDevices) Name() string { return "fuse without devices" }

var deviceless = mounttest.NewServer(noDevices{})

// writeAUFS makes changes that need marks of all kinds, and looks at them before and after the next mount.
func writeAUFS(t *testing.T, s *mounttest.Server, spec layer.Spec) {
	testfs.Write(t, spec.Lower[0], `
		file f "f"
		file g "g"
		dir d
		file d/old
		dir e
		file e/old
		dir m
		file m/1
		file m/2`)
	merged := testfs.TempDir(t)
	m := s.Mount(t, spec, merged)
	must(t, os.Remove(merged+"/f"))
	must(t, os.Rename(merged+"/g", merged+"/moved"))
	must(t, os.RemoveAll(merged+"/d"))
	must(t, os.Mkdir(merged+"/d", 0o755))
	must(t, os.WriteFile(merged+"/d/new", nil, 0o644))
	must(t, os.RemoveAll(merged+"/e"))
	must(t, os.Remove(merged+"/m/1"))
	must(t, os.WriteFile(merged+"/m/3", nil, 0o644))
	must(t, os.WriteFile(merged+"/f", []byte("again"), 0o644))
	must(t, os.Remove(merged+"/f"))
	must(t, os.Mkdir(merged+"/own", 0o755))
	must(t, os.Rename(merged+"/own", merged+"/e"))
	check := func() {
		t.Helper()
		wantNames(t, "d e m moved", merged)
		wantNames(t, "new", merged, "d")
		wantNames(t, "", merged, "e")
		wantNames(t, "2 3", merged, "m")
		wantGone(t, merged, "f")
		wantGone(t, merged, "g")
		wantGone(t, merged, "d/old")
		wantGone(t, merged, "e/old")
		wantGone(t, merged, "m/1")
	}
	check()
	m.Unmount()
	s.Mount(t, spec, merged)
	check()
	wantNames(t, names(t, spec.Work), spec.Work)
	must(t, os.RemoveAll(merged+"/m"))
	wantNames(t, "d e moved", merged)
}

// Without device nodes, whiteouts are AUFS's marks, but for those that the file system itself leaves at a rename.
func TestAUFSWhiteoutsAreWritten(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	spec.Options.FUSE.AUFSMarks = true
	writeAUFS(t, deviceless, spec)
	wantNames(t, ".wh.d .wh.e .wh.f .wh.m d e g moved", spec.Upper)
	if _, err := testfs.Getxattr(spec.Upper+"/e", "trusted.overlay.opaque"); err != nil {
		t.Errorf("the moved directory is not opaque: %v", err)
	}
	wantNames(t, "", spec.Work, "work")
}

// A file system without attributes and RENAME_WHITEOUT: directories get AUFS's mark, and what can be a device is one.
func TestAUFSOpaqueIsWritten(t *testing.T) {
	for _, test := range []struct {
		server *mounttest.Server
		upper  string
	}{
		{server, "d e f g m moved"},
		{deviceless, ".wh.d .wh.e .wh.f .wh.g .wh.m d e moved"},
	} {
		testfs.NeedRoot(t)
		dir := testfs.TempDir(t)
		if err := unix.Mount("unionfsd-test", dir, "ramfs", 0, "mode=755"); err != nil {
			testfs.Skip(t, "mount ramfs: %v", err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
		spec := layer.Spec{Lower: testfs.Layers(t, 1), Upper: dir + "/upper", Work: dir + "/work"}
		must(t, os.Mkdir(spec.Upper, 0o755))
		must(t, os.Mkdir(spec.Work, 0o755))

		if _, err := test.server.TryMount(t, spec, testfs.TempDir(t)); err == nil || !strings.Contains(err.Error(), "without extended attributes") {
			t.Errorf("without the option: %v", err)
		}
		spec.Options.FUSE.AUFSMarks = true
		writeAUFS(t, test.server, spec)
		wantNames(t, test.upper, spec.Upper)
		opaque := ".wh..wh..opq"
		if test.server == deviceless { // the mark beside the directory says it already
			opaque = ""
		}
		wantNames(t, strings.TrimSpace(opaque+" new"), spec.Upper, "d")
		wantNames(t, ".wh..wh..opq", spec.Upper, "e")
	}
}
