package cow_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// bench is a union of one lower layer with something to copy up.
type bench struct {
	t      *testing.T
	spec   layer.Spec
	stack  *layer.Stack
	copier *cow.Copier
	method sys.CopyMethod // how the last file was copied
}

func newBench(t *testing.T, lower string, dirs []string) *bench {
	testfs.NeedRoot(t)
	b := &bench{t: t, spec: layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}}
	testfs.Write(t, dirs[0], lower)
	var err error
	if b.stack, err = layer.Open(b.spec); err != nil {
		t.Fatal(err)
	}
	if err := b.stack.Work.Prepare(); err != nil {
		t.Fatal(err)
	}
	origins := cow.OpenOrigins(b.stack)
	t.Cleanup(func() {
		origins.Close()
		b.stack.Close()
	})
	b.copier = &cow.Copier{
		Work: b.stack.Work, Xattr: b.stack.Xattr, Origin: origins,
		Observe: func(m sys.CopyMethod, _ int64, _ time.Duration) { b.method = m },
	}
	return b
}

func (b *bench) source(name string) cow.Source {
	src := cow.Source{Ref: b.stack.Lowers[0].Root.At(name), Layer: b.stack.Lowers[0]}
	if err := src.Ref.Stat(&src.Stat); err != nil {
		b.t.Fatal(err)
	}
	return src
}

// copyUp copies name to the upper layer.
func (b *bench) copyUp(name string, opt cow.Options) {
	b.t.Helper()
	staged, err := b.copier.Build(b.source(name), opt)
	if err != nil {
		b.t.Fatal(err)
	}
	defer staged.Discard()
	if err := staged.Publish(b.stack.Upper.Root, name, layer.Add); err != nil {
		b.t.Fatal(err)
	}
}

func TestCopyIsFaithful(t *testing.T) {
	for _, line := range []string{
		`file n "data" mode=0640 owner=1000:100 mtime=1500000000.123456789`,
		`file n "data" mode=6755 owner=1000:1000 mtime=1500000000`,
		`file n mode=0000`,
		`file n "x" user.comment="kept" trusted.mine="kept too" mtime=1500000000`,
		`dir n mode=1777 owner=1000:1000 mtime=1500000000 user.comment="kept"`,
		`dir n mode=2755 owner=0:1000`,
		`symlink n -> "some where" owner=1000:1000 mtime=1500000000`,
		`fifo n mode=0600 owner=1000:1000`,
		`socket n`,
		`char n 1:3 mode=0666 mtime=1500000000`,
		`block n 7:0 mode=0660 owner=0:6`,
	} {
		t.Run(line, func(t *testing.T) {
			b := newBench(t, line, testfs.Layers(t, 3))
			b.copyUp("n", cow.Options{})
			opt := testfs.Options{Since: time.Unix(1600000000, 0)} // "new" is what a line gives no time for
			want, got := testfs.Fingerprint(b.spec.Lower[0], opt), testfs.Fingerprint(b.spec.Upper, opt)
			// The roots themselves were made at different times.
			if want, got := dropRoot(want), dropRoot(got); got != want {
				t.Errorf("copy:\n%swant:\n%s", got, want)
			}
		})
	}
}

func dropRoot(fingerprint string) string {
	var b strings.Builder
	for line := range strings.Lines(fingerprint) {
		if !strings.HasPrefix(line, "dir . ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestCopyKeepsCapabilities(t *testing.T) {
	b := newBench(t, `file n "x" mode=0755 owner=1000:1000`, testfs.Layers(t, 3))
	// struct vfs_cap_data, revision 2, CAP_NET_RAW permitted and effective
	caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(filepath.Join(b.spec.Lower[0], "n"), "security.capability", caps, 0); err != nil {
		t.Fatal(err)
	}
	b.copyUp("n", cow.Options{})
	got, err := b.stack.Upper.Root.At("n").Getxattr("security.capability")
	if err != nil || !bytes.Equal(got, caps) {
		t.Errorf("capabilities %x, %v; want %x", got, err, caps)
	}
}

func TestCopyKeepsACLs(t *testing.T) {
	b := newBench(t, "file f \"x\" mode=0640\ndir d", testfs.Layers(t, 3))
	// version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::---
	acl := []byte{2, 0, 0, 0,
		1, 0, 6, 0, 255, 255, 255, 255,
		2, 0, 4, 0, 0xe8, 3, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 4, 0, 255, 255, 255, 255,
		32, 0, 0, 0, 255, 255, 255, 255}
	for name, attr := range map[string]string{"f": "system.posix_acl_access", "d": "system.posix_acl_default"} {
		if err := unix.Setxattr(filepath.Join(b.spec.Lower[0], name), attr, acl, 0); err != nil {
			testfs.Skip(t, "no ACLs on the temporary directory: %v", err)
		}
		b.copyUp(name, cow.Options{})
		if got, err := b.stack.Upper.Root.At(name).Getxattr(attr); err != nil || !bytes.Equal(got, acl) {
			t.Errorf("%s: %x, %v; want %x", attr, got, err, acl)
		}
	}
}

func TestCopyKeepsHoles(t *testing.T) {
	const lower = `file n size=67108864 data=4194304:"middle" data=67108860:"tail"`
	for name, dirs := range map[string]func() []string{
		"on one file system": func() []string { return testfs.Layers(t, 3) },
		"between two": func() []string {
			tmpfs := testfs.Tmpfs(t)
			for _, d := range []string{"upper", "work"} {
				if err := os.Mkdir(filepath.Join(tmpfs, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			return []string{testfs.Layers(t, 1)[0], filepath.Join(tmpfs, "upper"), filepath.Join(tmpfs, "work")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, lower, dirs())
			b.copyUp("n", cow.Options{})
			if want, got := testfs.Fingerprint(b.spec.Lower[0], testfs.Options{}), testfs.Fingerprint(b.spec.Upper, testfs.Options{Layer: true}); got != want {
				t.Errorf("copy:\n%swant:\n%s", got, want)
			}
			var st unix.Stat_t
			if err := b.stack.Upper.Root.Stat("n", &st); err != nil {
				t.Fatal(err)
			}
			if st.Blocks*512 > 1<<20 {
				t.Errorf("the copy takes %d KiB, of 64 MiB that are nearly all hole", st.Blocks/2)
			}
			t.Logf("copied by %s", b.method)
		})
	}
}

func TestNoDataCopiesNone(t *testing.T) {
	b := newBench(t, `file n "data" mode=0600 owner=1000:1000`, testfs.Layers(t, 3))
	b.copyUp("n", cow.Options{NoData: true})
	want, _ := testfs.Canonical(`file n mode=0600 owner=1000:1000`)
	if got := testfs.Fingerprint(b.spec.Upper, testfs.Options{}); got != want {
		t.Errorf("copy:\n%swant:\n%s", got, want)
	}
	if b.method != sys.CopyNone {
		t.Errorf("copied by %s", b.method)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	b := newBench(t, `file n size=1048576 data=0:"x"`, testfs.Layers(t, 3))
	staged, err := b.copier.Build(b.source("n"), cow.Options{Cancelled: func() bool { return true }})
	if err == nil {
		staged.Discard()
		testfs.Skip(t, "the file system shares blocks: nothing is copied that could be cancelled")
	}
	if !strings.Contains(err.Error(), unix.EINTR.Error()) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(b.spec.Work, "work")); len(left) != 0 {
		t.Errorf("left in work: %v", left)
	}
}

func TestOrigin(t *testing.T) {
	b := newBench(t, "file f \"x\"\ndir d\nsymlink s -> t", testfs.Layers(t, 3))
	for _, name := range []string{"f", "d", "s"} {
		src := b.source(name)
		b.copyUp(name, cow.Options{Origin: true})
		lower, ok := b.copier.Origin.Find(b.stack.Upper.Root.At(name), b.stack.Xattr)
		if !ok {
			testfs.Skip(t, "the file system has no file handles or tells no UUID")
		}
		if lower.Stat.Ino != src.Stat.Ino || lower.FSID != 0 {
			t.Errorf("%s: origin is inode %d of file system %d, want %d of 0", name, lower.Stat.Ino, lower.FSID, src.Stat.Ino)
		}
	}
}

func TestNoOrigin(t *testing.T) {
	b := newBench(t, `file f "x"`, testfs.Layers(t, 3))
	b.copyUp("f", cow.Options{})
	ref := b.stack.Upper.Root.At("f")
	for _, value := range []string{"", "\x00\xfb", "\x00\xfb\x15\x00\x01", strings.Repeat("\xfb", 64)} {
		if value != "" {
			if err := ref.Setxattr(b.stack.Xattr.Origin, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
		if lower, ok := b.copier.Origin.Find(ref, b.stack.Xattr); ok {
			t.Errorf("origin %q is inode %d", value, lower.Stat.Ino)
		}
	}
}
