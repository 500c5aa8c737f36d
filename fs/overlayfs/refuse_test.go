package overlayfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("x", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
}

func TestInUse(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, `file f "1"`)
		v := open(t, b, spec)
		mustFail(t, b, spec, false, "is in use by another union") // its View is not closed: the lock tells
		dir := testfs.TempDir(t)
		if err := v.Attach(dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
		v.Close()
		mustFail(t, b, spec, false, "upper layer", "is in use by the overlay on", dir, "unmount that first")
		if stack, err := layer.Open(spec); err == nil { // as another backend would
			stack.Close()
			t.Error("layer.Open takes an upper layer that an overlay has")
		}

		other := newSpec(t, `file f "1"`)
		other.Work = spec.Work
		mustFail(t, b, other, false, "work directory", "is in use by the overlay on", dir)
		other.Upper, other.Work = spec.Work, spec.Upper
		mustFail(t, b, other, false, "is in use by the overlay on", dir)

		link := filepath.Join(testfs.TempDir(t), "link")
		if err := os.Symlink(spec.Upper, link); err != nil {
			t.Fatal(err)
		}
		other = newSpec(t, `file f "1"`)
		other.Upper, other.Work = link, mkdir(t, filepath.Dir(spec.Upper), "work2")
		mustFail(t, b, other, false, "is in use by the overlay on", dir)

		unmount(t, dir)
		open(t, b, spec)
	})
}

func TestUpperInsideLower(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		lower := testfs.Layers(t, 1)[0]
		spec := layer.Spec{Lower: []string{lower}, Upper: mkdir(t, lower, "a/upper"), Work: mkdir(t, lower, "a/work")}
		outside := newSpec(t, `file f "1"`)
		mustFail(t, b, spec, true, "upper layer", "is inside lower layer", "--backend fuse")
		if err := b.Supports(context.Background(), spec); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Supports: %v", err)
		}
		mustFail(t, b, layer.Spec{Lower: []string{lower}, Upper: lower, Work: outside.Work}, false, "lower layer", "is inside upper layer")

		// What the kernel would show, which is why it is refused.
		b.AllowInside = true
		dir, v := attach(t, b, spec)
		for _, name := range []string{"a/upper", "a/work"} {
			if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, unix.ELOOP) {
				t.Errorf("stat %s in the union: %v, want ELOOP", name, err)
			}
		}
		testfs.Write(t, dir, `file b "2"`)
		sameTree(t, "upper", spec.Upper, `file b "2"`, testfs.Options{Layer: true})
		unmount(t, dir)
		v.Close()
		b.AllowInside = false

		// Another file system inside of the lower layer is not part of it.
		spec.Lower = []string{testfs.Layers(t, 1)[0]}
		tmpfs := mkdir(t, spec.Lower[0], "tmpfs")
		mountTmpfs(t, tmpfs)
		spec.Upper, spec.Work = mkdir(t, tmpfs, "upper"), mkdir(t, tmpfs, "work")
		dir, v = attach(t, b, spec)
		sameTree(t, "union", dir, "dir tmpfs", testfs.Options{})
		unmount(t, dir)
		v.Close()
		unmount(t, tmpfs)
	})
}

func TestWorkInsideLower(t *testing.T) {
	needOverlay(t)
	spec := newSpec(t, `file f "1"`)
	spec.Work = mkdir(t, spec.Lower[0], "work")
	mustFail(t, Backend{}, spec, true, "work directory", "is inside lower layer")
}

func TestOverlappingLayers(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		dirs := testfs.Layers(t, 3)
		mustFail(t, b, layer.Spec{Lower: []string{dirs[0], dirs[1], dirs[0]}}, true, "are the same directory", dirs[0])
		inner := mkdir(t, dirs[1], "deep/inner")
		mustFail(t, b, layer.Spec{Lower: []string{dirs[0], inner, dirs[1]}}, true, inner, "is inside lower layer", dirs[1])
		mustFail(t, b, layer.Spec{Lower: []string{inner}, Upper: dirs[1], Work: dirs[2]}, false, inner, "is inside upper layer", dirs[1])
	})
}

func TestUpperOnOverlay(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		dir, _ := attach(t, b, newSpec(t, `file f "1"`))
		spec := newSpec(t, `file f "1"`)
		spec.Upper, spec.Work = mkdir(t, dir, "upper"), mkdir(t, dir, "work")
		mustFail(t, b, spec, true, "upper layer", "is itself on an overlay", "--backend fuse")
		unmount(t, dir)
	})
}

func TestStackedTooDeep(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		first, _ := attach(t, b, newSpec(t, `file f "1"`))
		spec := newSpec(t, `file f "1"`)
		spec.Lower = []string{first}
		second, _ := attach(t, b, spec)
		sameTree(t, "overlay on overlay", second, `file f "1"`, testfs.Options{})
		spec = newSpec(t, `file f "1"`)
		spec.Lower = append(spec.Lower, second)
		mustFail(t, b, spec, true, "lower layer", second, "two deep")
		unmount(t, second)
		unmount(t, first)
	})
}

func TestLayerOnProc(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, `file f "1"`)
		spec.Lower = append(spec.Lower, "/proc")
		mustFail(t, b, spec, true, `lower layer "/proc"`, "does not take (proc)")
	})
}

// The kernel would go on with a read-only mount.
func TestWorkUnusable(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, `file f "1"`)
		old := mkdir(t, spec.Work, "work") // which the kernel replaces by one of its own
		setImmutable(t, old, true)
		mustFail(t, b, spec, true, "read-only union", spec.Work)
		setImmutable(t, old, false)
		open(t, b, spec)
	})
}

func setImmutable(t *testing.T, dir string, on bool) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const immutable = unix.STATX_ATTR_IMMUTABLE // FS_IMMUTABLE_FL has the same value
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	flags &^= immutable
	if on {
		flags |= immutable
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	}
	if err != nil {
		testfs.Skip(t, "set FS_IMMUTABLE_FL on %s: %v", dir, err)
	}
	if on {
		t.Cleanup(func() { setImmutable(t, dir, false) })
	}
}

func TestLongSource(t *testing.T) {
	needOverlay(t)
	spec := newSpec(t, `file f "1"`)
	spec.Options.FsName = strings.Repeat("x", maxString+1)
	mustFail(t, Backend{}, spec, false, "fsname", "255")
	spec.Options.FsName = spec.Options.FsName[1:]
	dir, _ := attach(t, Backend{}, spec)
	unmount(t, dir)
}

func TestNothingLeftOfFailedOpen(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, `file f "1"`)
		bad := spec
		bad.Lower = append([]string{"/proc"}, spec.Lower...)
		mustFail(t, b, bad, true, "/proc")
		sameTree(t, "upper", spec.Upper, "", testfs.Options{Layer: true})
		open(t, b, spec) // the lock is free
	})
}

func TestExplain(t *testing.T) {
	spec := newSpec(t, `file f "1"`)
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	u, err := openUnion(stack)
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	lower := option{name: "lowerdir+", dir: u.lowers[0]}
	for _, test := range []struct {
		failure     failure
		unsupported bool
		want        []string
	}{
		{failure{option: option{name: "userxattr"}, errno: unix.EINVAL, log: []string{"Unknown parameter 'userxattr'"}}, true,
			[]string{"userxattr", "Linux 5.11"}},
		{failure{option: option{name: "volatile"}, errno: unix.EINVAL}, true, []string{"volatile", "Linux 5.10"}},
		{failure{option: lower, errno: unix.EINVAL, log: []string{"case-insensitive capable filesystem on /x not supported"}}, true,
			[]string{"lower layer", spec.Lower[0], "does not take"}},
		{failure{option: lower, errno: unix.EREMOTE}, true, []string{"lower layer", "does not take"}},
		{failure{option: option{name: "upperdir", dir: u.upper}, errno: unix.EINVAL, log: []string{"filesystem on /u is read-only"}}, false,
			[]string{"upper layer", spec.Upper, "read-only mount"}},
		{failure{option: option{name: "workdir", dir: u.work}, errno: unix.EINVAL, log: []string{"filesystem on /w is read-only"}}, false,
			[]string{"work directory", spec.Work, "read-only mount"}},
		{failure{errno: unix.EPERM}, true, []string{"operation not permitted", "run as root"}},
		{failure{errno: unix.ENOMEM}, false, []string{"make the overlay: cannot allocate memory", "dmesg"}},
		{failure{errno: unix.EINVAL}, false, []string{"make the overlay: invalid argument", "dmesg"}},
		{failure{errno: unix.ELOOP}, false, []string{"make the overlay", "dmesg"}},
		{failure{option: lower, errno: unix.EINVAL, log: []string{"one", "two"}}, false, []string{`give overlayfs "lowerdir+=`, "invalid argument: one; two"}},
	} {
		err := u.explain(test.failure)
		for _, w := range test.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: %v\nwant %q in it", test.failure, err, w)
			}
		}
		if got := errors.Is(err, errors.ErrUnsupported); got != test.unsupported {
			t.Errorf("%+v: %v: is it ErrUnsupported? %v", test.failure, err, got)
		}
	}
}

func TestOptionsOfFUSE(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		for _, option := range []string{
			"uidmapping=0:1000:1", "squash_to_root", "squash_to_gid=0", "xattr_permissions=2", "noacl", "static_nlink",
			"fsync=0", "timeout=0", "aufs_marks=on",
		} {
			spec := newSpec(t, `file f "1"`)
			given, _, err := layer.ParseOptions(option)
			if err != nil {
				t.Fatal(err)
			}
			spec.Options = given.Options
			mustFail(t, b, spec, true, option, "--backend fuse")
		}
	})
}

func TestExportWithoutUpper(t *testing.T) {
	spec := layer.Spec{Lower: []string{testfs.TempDir(t)}, Options: layer.Options{NFSExport: true}}
	mustFail(t, Backend{}, spec, true, "nfs_export=on only with redirect_dir=nofollow", "--backend fuse")
	spec.Options.RedirectDir = layer.RedirectNoFollow
	open(t, Backend{}, spec)
}
