package whiteout_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

func open(t *testing.T) (*layer.Stack, layer.Spec) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	stack, err := layer.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	if err := stack.Work.Prepare(); err != nil {
		t.Fatal(err)
	}
	return stack, spec
}

func TestCover(t *testing.T) {
	for _, test := range []struct {
		name, before string
		what         whiteout.Covered
		want         error
	}{
		{"nothing", "", whiteout.Nothing, nil},
		{"a file", `file n "old"`, whiteout.File, nil},
		{"a symbolic link", `symlink n -> nowhere`, whiteout.File, nil},
		{"a FIFO", `fifo n`, whiteout.File, nil},
		{"an empty directory", `dir n`, whiteout.Directory, nil},
		{"a directory of whiteouts", "dir n\nwhiteout n/a\ndir n/b\nwhiteout n/b/c", whiteout.Directory, nil},
		{"what is taken for nothing", `file n`, whiteout.Nothing, unix.EEXIST},
		{"a directory that is taken for a file", `dir n`, whiteout.File, unix.EISDIR},
	} {
		t.Run(test.name, func(t *testing.T) {
			stack, spec := open(t)
			testfs.Write(t, spec.Upper, test.before)
			maker := whiteout.NewMaker(stack.Work, stack.Xattr)
			if err := maker.Cover(stack.Upper.Root, "n", test.what); err != test.want {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			want := "whiteout n"
			if test.want != nil {
				want = test.before
			}
			want, _ = testfs.Canonical(want)
			if got := testfs.Fingerprint(spec.Upper, testfs.Options{Layer: true}); got != want {
				t.Errorf("upper layer:\n%swant:\n%s", got, want)
			}
			left, err := os.ReadDir(filepath.Join(spec.Work, "work"))
			if err != nil || len(left) != 1 { // the whiteout that the next ones will be links of
				t.Errorf("left in work: %v, %v", left, err)
			}
		})
	}
}

func TestWhiteoutsShareOneInode(t *testing.T) {
	stack, spec := open(t)
	maker := whiteout.NewMaker(stack.Work, stack.Xattr)
	var ino uint64
	for _, name := range []string{"a", "b", "c"} {
		if err := maker.Cover(stack.Upper.Root, name, whiteout.Nothing); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(spec.Upper, name), &st); err != nil {
			t.Fatal(err)
		}
		if !whiteout.Is(&st) {
			t.Errorf("%s is no whiteout: mode %o rdev %d", name, st.Mode, st.Rdev)
		}
		if ino != 0 && st.Ino != ino {
			t.Errorf("%s has an inode of its own", name)
		}
		ino = st.Ino
	}
}

func TestIs(t *testing.T) {
	for _, test := range []struct {
		st   unix.Stat_t
		want bool
	}{
		{unix.Stat_t{Mode: unix.S_IFCHR}, true},
		{unix.Stat_t{Mode: unix.S_IFCHR | 0o666}, true},
		{unix.Stat_t{Mode: unix.S_IFCHR, Rdev: unix.Mkdev(1, 3)}, false},
		{unix.Stat_t{Mode: unix.S_IFBLK}, false},
		{unix.Stat_t{Mode: unix.S_IFREG}, false},
	} {
		if got := whiteout.Is(&test.st); got != test.want {
			t.Errorf("Is(mode %o, rdev %d) = %v", test.st.Mode, test.st.Rdev, got)
		}
	}
}

func TestMarkedWhiteout(t *testing.T) {
	stack, spec := open(t)
	testfs.Write(t, spec.Upper, "file empty trusted.overlay.whiteout=\"y\"\nfile full \"x\" trusted.overlay.whiteout=\"y\"\nfile plain")
	for name, want := range map[string]bool{"empty": true, "full": false, "plain": false} {
		ref := stack.Upper.Root.At(name)
		var st unix.Stat_t
		if err := ref.Stat(&st); err != nil {
			t.Fatal(err)
		}
		if got, err := whiteout.IsMarked(ref, &st, stack.Xattr); got != want || err != nil {
			t.Errorf("IsMarked(%s) = %v, %v", name, got, err)
		}
	}
}

func TestOpacity(t *testing.T) {
	stack, spec := open(t)
	testfs.Write(t, spec.Upper, "dir plain\ndir set")
	for value, want := range map[string]whiteout.Opacity{"y": whiteout.Opaque, "x": whiteout.Marked, "n": whiteout.Transparent, "yes": whiteout.Transparent} {
		if err := unix.Lsetxattr(filepath.Join(spec.Upper, "set"), stack.Xattr.Opaque, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		if got, err := whiteout.OpacityOf(stack.Upper.Root.At("set"), stack.Xattr); got != want || err != nil {
			t.Errorf("opaque=%s: %v, %v", value, got, err)
		}
	}
	plain := stack.Upper.Root.At("plain")
	if got, err := whiteout.OpacityOf(plain, stack.Xattr); got != whiteout.Transparent || err != nil {
		t.Errorf("unmarked: %v, %v", got, err)
	}
	if err := whiteout.SetOpaque(plain, stack.Xattr, false); err != nil {
		t.Fatal(err)
	}
	if got, err := whiteout.OpacityOf(plain, stack.Xattr); got != whiteout.Opaque || err != nil {
		t.Errorf("after SetOpaque: %v, %v", got, err)
	}
}
