package layer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// spec makes empty layers and returns a Spec of them.
func spec(t *testing.T) layer.Spec {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	return layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
}

func open(t *testing.T, s layer.Spec) *layer.Stack {
	stack, err := layer.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	if stack.Work != nil {
		if err := stack.Work.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	return stack
}

func TestOpenRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, s *layer.Spec)
		want  string
	}{
		{"a missing lower layer", func(t *testing.T, s *layer.Spec) { s.Lower[0] += "/none" }, "does not exist: create it"},
		{"a missing upper layer", func(t *testing.T, s *layer.Spec) { s.Upper += "/none" }, "upper layer"},
		{"a missing work directory", func(t *testing.T, s *layer.Spec) { s.Work += "/none" }, "work directory"},
		{"a file as lower layer", func(t *testing.T, s *layer.Spec) {
			s.Lower[0] += "/file"
			if err := os.WriteFile(s.Lower[0], nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "is not a directory"},
		{"work on another file system", func(t *testing.T, s *layer.Spec) { s.Work = testfs.Tmpfs(t) }, "on different file systems"},
		{"work inside upper", func(t *testing.T, s *layer.Spec) {
			s.Work = filepath.Join(s.Upper, "work")
			if err := os.Mkdir(s.Work, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "one is inside the other"},
		{"a lower layer inside upper", func(t *testing.T, s *layer.Spec) {
			s.Lower = append(s.Lower, filepath.Join(s.Upper, "a/b"))
			if err := os.MkdirAll(s.Lower[len(s.Lower)-1], 0o755); err != nil {
				t.Fatal(err)
			}
		}, "is inside upper layer"},
		{"upper as a lower layer", func(t *testing.T, s *layer.Spec) { s.Lower = append(s.Lower, s.Upper) }, "is inside upper layer"},
		{"work as a data-only layer", func(t *testing.T, s *layer.Spec) { s.Data = append(s.Data, s.Work) }, "is inside work directory"},
		{"upper as work", func(t *testing.T, s *layer.Spec) { s.Work = s.Upper }, "are the same"},
		{"an upper layer without work", func(t *testing.T, s *layer.Spec) { s.Work = "" }, "without a work directory"},
		{"a volatile mount that did not end", func(t *testing.T, s *layer.Spec) {
			if err := os.MkdirAll(filepath.Join(s.Work, "work/incompat/volatile"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "not unmounted cleanly"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t)
			test.spoil(t, &s)
			stack, err := layer.Open(s)
			if err == nil {
				stack.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q does not say %q in one line", err, test.want)
			}
		})
	}
}

func TestOneUnionForAnUpper(t *testing.T) {
	s := spec(t)
	first := open(t, s)
	if second, err := layer.Open(s); err == nil {
		second.Close()
		t.Fatal("the same upper was opened twice")
	} else if !strings.Contains(err.Error(), "in use by another union") {
		t.Error(err)
	}
	if look, err := layer.OpenReadOnly(s); err != nil {
		t.Errorf("cannot look at a union that is in use: %v", err)
	} else {
		look.Close()
	}
	first.Close()
	open(t, s)
}

// As after umount(8), when the daemon is still about to let go.
func TestOpenWaitsForAnEndingUnion(t *testing.T) {
	s := spec(t)
	first, err := layer.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	open(t, s)
}

// As after umount(8), when the daemon has a large file to complete.
func TestOpenWaitsForACompletingUnion(t *testing.T) {
	s := spec(t)
	first, err := layer.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Work.BeginEnd(); err != nil {
		t.Fatal(err)
	}
	const long = 1500 * time.Millisecond
	time.AfterFunc(long, func() { first.Close() }) // as if it was killed: the mark stays
	begin := time.Now()
	second := open(t, s)
	if waited := time.Since(begin); waited < long/2 {
		t.Errorf("opened after %v, before the first was closed", waited)
	}
	if third, err := layer.Open(s); err == nil {
		third.Close()
		t.Error("opened, though the second does not end")
	}
	if err := errors.Join(second.Work.BeginEnd(), second.Work.EndEnd()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.Work); err != nil || len(left) > 1 {
		t.Errorf("in the work directory: %v, %v; want no more than work", left, err)
	}
}

func TestPrepareRemovesLeftovers(t *testing.T) {
	s := spec(t)
	if err := os.MkdirAll(filepath.Join(s.Work, "work/#1/deep/er"), 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, s)
	names, err := os.ReadDir(filepath.Join(s.Work, "work"))
	if err != nil || len(names) != 0 {
		t.Errorf("work has %v, %v", names, err)
	}
}

func TestLowerLayerDoesNotCrossMounts(t *testing.T) {
	s := spec(t)
	sub := filepath.Join(s.Lower[0], "sub")
	if err := os.MkdirAll(filepath.Join(sub, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	stack := open(t, s)
	dir, err := stack.Lowers[0].Root.OpenDir("sub")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if names, err := dir.Names(); err != nil || len(names) != 1 || names[0] != "below" {
		t.Errorf("below the mount point: %v, %v", names, err)
	}
	if err := dir.Mkdir("new", 0o755); err != unix.EROFS {
		t.Errorf("a lower layer can be written: %v", err)
	}
}

func TestUpperDoesNotHoldItsMount(t *testing.T) {
	for name, dirs := range map[string][2]string{
		"beside each other": {"u", "w"},
		"far apart":         {"a/b/u", "a/c/d/w"},
		"spaces":            {"a b/u v", "w (deleted)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t)
			mount := testfs.TempDir(t)
			if err := unix.Mount("none", mount, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(mount, unix.MNT_DETACH)
			s.Upper, s.Work = filepath.Join(mount, dirs[0]), filepath.Join(mount, dirs[1])
			for _, dir := range []string{s.Upper, s.Work, filepath.Join(s.Upper, "sub")} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount("none", filepath.Join(s.Upper, "sub"), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(filepath.Join(s.Upper, "sub"), unix.MNT_DETACH)
			stack := open(t, s)
			for _, dir := range []string{filepath.Join(s.Upper, "sub"), mount} {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Fatalf("unmount %s: %v", dir, err)
				}
			}
			if err := stack.Work.Prepare(); err != nil {
				t.Fatal(err)
			}
			staged, err := stageFile(stack.Work)
			if err != nil {
				t.Fatal(err)
			}
			if err := staged.Publish(stack.Upper.Root, "new", layer.Add); err != nil {
				t.Errorf("from work to upper: %v", err)
			}
		})
	}
}

func TestPublish(t *testing.T) {
	for _, test := range []struct {
		name   string
		before string // in the upper layer, under the name n
		stage  func(w *layer.Work) (*layer.Staged, error)
		how    layer.How
		want   string
		err    error
	}{
		{"adds a file", "", stageFile, layer.Add, `file n`, nil},
		{"adds a directory", "", stageDir, layer.Add, `dir n`, nil},
		{"adds over nothing only", `file n "old"`, stageFile, layer.Add, `file n "old"`, unix.EEXIST},
		{"adds a directory over nothing only", `file n "old"`, stageDir, layer.Add, `file n "old"`, unix.EEXIST},
		{"replaces a file", `file n "old"`, stageFile, layer.Replace, `file n`, nil},
		{"replaces no directory by a file", `dir n`, stageFile, layer.Replace, `dir n`, unix.EISDIR},
		{"exchanges a full directory", "dir n\nfile n/x", stageFile, layer.Exchange, `file n`, nil},
		{"exchanges with something only", "", stageDir, layer.Exchange, ``, unix.ENOENT},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t)
			testfs.Write(t, s.Upper, test.before)
			stack := open(t, s)
			staged, err := test.stage(stack.Work)
			if err != nil {
				t.Fatal(err)
			}
			if err := staged.Publish(stack.Upper.Root, "n", test.how); err != test.err {
				t.Errorf("error %v, want %v", err, test.err)
			}
			staged.Discard()
			want, err := testfs.Canonical(test.want)
			if err != nil {
				t.Fatal(err)
			}
			if got := testfs.Fingerprint(s.Upper, testfs.Options{}); got != want {
				t.Errorf("upper layer:\n%swant:\n%s", got, want)
			}
			if left, _ := os.ReadDir(filepath.Join(s.Work, "work")); len(left) != 0 {
				t.Errorf("left in work: %v", left)
			}
		})
	}
}

func stageFile(w *layer.Work) (*layer.Staged, error) {
	s, _, err := w.StageFile(0o644)
	return s, err
}

func stageDir(w *layer.Work) (*layer.Staged, error) {
	name := w.TempName()
	return w.StageNamed(name), w.Dir().Mkdir(name, 0o755)
}

func TestXattrNames(t *testing.T) {
	s := spec(t)
	x := open(t, s).Xattr
	for _, test := range []struct {
		user, disk string
		private    bool
	}{
		{"user.x", "user.x", false},
		{"trusted.overlayfsrz", "trusted.overlayfsrz", false},
		{"trusted.overlay.opaque", "trusted.overlay.overlay.opaque", false},
		{"trusted.overlay.overlay.opaque", "trusted.overlay.overlay.overlay.opaque", false},
		{"", "trusted.overlay.opaque", true},
	} {
		if got := x.Private(test.disk); got != test.private {
			t.Errorf("Private(%s) = %v", test.disk, got)
		}
		if test.private {
			continue
		}
		if got := x.ToDisk(test.user); got != test.disk {
			t.Errorf("ToDisk(%s) = %s, want %s", test.user, got, test.disk)
		}
		if got := x.FromDisk(test.disk); got != test.user {
			t.Errorf("FromDisk(%s) = %s, want %s", test.disk, got, test.user)
		}
	}
}
