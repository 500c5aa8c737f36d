package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/diff"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

// lazy leaves all copies of files unfinished.
var lazy = mounttest.NewServer(union.Backend{LazyFrom: 1}).With("lazy=keep,io_uring=off")

func TestMain(m *testing.M) { testfs.Main(m) }

// applied applies what the union of spec changes to target.
func applied(t *testing.T, spec layer.Spec, target string) error {
	t.Helper()
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	changes, err := diff.Every(stack)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	err = Changes(t.Context(), stack, changes, target, func(diff.Change) { count++ })
	if err == nil && count != len(changes) {
		t.Errorf("told of %d changes of %d", count, len(changes))
	}
	return err
}

// copyTree copies all that a union shows to a directory.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := testfs.Layers(t, 1)[0]
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

// same compares two trees, all but the times of directories that nothing was done to, and of the roots.
func same(t *testing.T, got, want string) {
	t.Helper()
	g, w := testfs.Fingerprint(got, testfs.Options{}), testfs.Fingerprint(want, testfs.Options{})
	if g != w {
		t.Errorf("the directory has\n%s\nthe union\n%s", g, w)
	}
}

// TestAgainstKernel applies changes that were made at random in a union of the kernel's to a copy of its lower layers,
// which is then what the union is.
func TestAgainstKernel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
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
			target := copyTree(t, was)
			testunion.Unmount(t, was)
			now := testunion.Mount(t, spec)
			testunion.Change(t, r, now, 60)
			want := copyTree(t, now)
			testunion.Unmount(t, now)
			for range 2 { // to do it again changes nothing
				if err := applied(t, spec, target); err != nil {
					t.Fatal(err)
				}
				same(t, target, want)
			}
		})
	}
}

// TestLazyCopies applies changes of files whose data are in two layers, onto the lower one itself.
func TestLazyCopies(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	block := strings.Repeat("x", 64<<10)
	if err := os.WriteFile(filepath.Join(dirs[0], "f"), []byte(strings.Repeat(block, 4)), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	merged := testfs.TempDir(t)
	m := lazy.Mount(t, spec, merged)
	f, err := os.OpenFile(filepath.Join(merged, "f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("new"), 100<<10)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	want := copyTree(t, merged)
	m.Unmount()
	if _, err := unix.Lgetxattr(filepath.Join(dirs[1], "f"), "trusted.overlay.metacopy", nil); err != nil {
		t.Fatalf("it is no lazy copy: %v", err)
	}
	if err := applied(t, spec, dirs[0]); err != nil {
		t.Fatal(err)
	}
	same(t, dirs[0], want)
}

// TestObjects has what the operations at random have not.
func TestObjects(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	testfs.Write(t, dirs[0], `
		dir d mode=0711
		file d/old "old"
		file hole "x"
		dir plain
	`)
	testfs.Write(t, dirs[1], `
		dir d mode=02775 owner=7:8
		file d/set "s" mode=04755 owner=5:6
		char d/null 1:3 mode=0666
		fifo d/p mode=0600
		symlink d/l -> ../../../etc/passwd owner=5:6
		dir closed mode=0000
		file closed/in "in"
	`)
	for name, value := range map[string]string{"user.note": "n", "trusted.overlay.overlay.opaque": "y", "trusted.overlay.origin": "o"} {
		if err := unix.Lsetxattr(filepath.Join(dirs[1], "d/set"), name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Lsetxattr(filepath.Join(dirs[0], "d"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err) // the target is a layer itself, and stays one
	}
	hole, err := os.Create(filepath.Join(dirs[1], "hole"))
	if err == nil {
		_, err = hole.WriteAt([]byte("end"), 16<<20)
		err = errors.Join(err, hole.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	if err := applied(t, spec, dirs[0]); err != nil {
		t.Fatal(err)
	}
	want, err := testfs.Canonical(`
		dir d mode=02775 owner=7:8 opaque
		file d/old "old"
		file d/set "s" mode=04755 owner=5:6 opaque user.note="n"
		char d/null 1:3 mode=0666
		fifo d/p mode=0600
		symlink d/l -> ../../../etc/passwd owner=5:6
		dir closed mode=0000
		file closed/in "in"
		dir plain
	`)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dirs[0], "hole"), &st); err != nil || st.Size != 16<<20+3 || st.Blocks > 1<<10 {
		t.Errorf("the hole: %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	if err := os.Remove(filepath.Join(dirs[0], "hole")); err != nil {
		t.Fatal(err)
	}
	if got := testfs.Fingerprint(dirs[0], testfs.Options{Layer: true}); got != want {
		t.Errorf("the directory has\n%swant\n%s", got, want)
	}
	value := make([]byte, 8)
	n, err := unix.Lgetxattr(filepath.Join(dirs[0], "d/set"), "trusted.overlay.opaque", value)
	if err != nil || string(value[:n]) != "y" {
		t.Errorf("an attribute of the user's: %q, %v", value[:n], err)
	}
}

// TestHostile has symbolic links in the target where the union has directories.
func TestHostile(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 5)
	testfs.Write(t, dirs[0], "dir d\nfile d/keep \"k\"\nfile d/gone \"g\"")
	testfs.Write(t, dirs[1], "dir d\nfile d/new \"n\"\nwhiteout d/gone")
	outside := dirs[4]
	testfs.Write(t, outside, `file gone "outside"`)
	before := testfs.Fingerprint(outside, testfs.Options{})
	target := dirs[3]
	if err := os.Symlink(outside, filepath.Join(target, "d")); err != nil {
		t.Fatal(err)
	}
	if err := applied(t, layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}, target); err != nil {
		t.Fatal(err)
	}
	if after := testfs.Fingerprint(outside, testfs.Options{}); after != before {
		t.Errorf("outside of the target is\n%s", after)
	}
	want, _ := testfs.Canonical("dir d\nfile d/new \"n\"")
	if got := testfs.Fingerprint(target, testfs.Options{}); got != want {
		t.Errorf("the target has\n%s", got)
	}
}

// TestCancelled ends early, and leaves no half of anything.
func TestCancelled(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	testfs.Write(t, dirs[1], "file a \"a\"\nfile b \"b\"\nfile c \"c\"")
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	changes, err := diff.Every(stack)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Changes(ctx, stack, changes, dirs[0], func(diff.Change) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if list, err := os.ReadDir(dirs[0]); err != nil || len(list) != 1 {
		t.Errorf("the target has %v, %v", list, err)
	}
}
