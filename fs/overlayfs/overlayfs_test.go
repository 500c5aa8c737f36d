package overlayfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

func (f form) String() string {
	return [...]string{"any", "descriptors", "strings", "text"}[f]
}

// eachForm runs a test with every form that this kernel has of giving it layers.
func eachForm(t *testing.T, test func(t *testing.T, b Backend)) {
	best := needOverlay(t)
	for _, f := range []form{byFD, byStrings, byText} {
		t.Run(f.String(), func(t *testing.T) {
			if f < best {
				testfs.Skip(t, "this kernel takes no layers as %s", f)
			}
			test(t, Backend{form: f})
		})
	}
}

func needOverlay(t *testing.T) form {
	t.Helper()
	best, err := bestForm()
	if err != nil {
		testfs.Skip(t, "no overlayfs: %v", err)
	}
	return best
}

// newSpec makes n lower layers, an upper layer and a work directory.
func newSpec(t *testing.T, lowers ...string) layer.Spec {
	t.Helper()
	dirs := testfs.Layers(t, len(lowers)+2)
	for i, text := range lowers {
		testfs.Write(t, dirs[i], text)
	}
	n := len(lowers)
	return layer.Spec{Lower: dirs[:n], Upper: dirs[n], Work: dirs[n+1]}
}

func open(t *testing.T, b Backend, spec layer.Spec) mount.View {
	t.Helper()
	v, err := b.Open(context.Background(), spec)
	if err != nil {
		t.Fatalf("Open(%v): %v", spec, err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return v
}

// attach opens spec and mounts it on a directory that is unmounted at the end of the test.
func attach(t *testing.T, b Backend, spec layer.Spec) (string, mount.View) {
	t.Helper()
	dir := testfs.TempDir(t)
	v := open(t, b, spec)
	if err := v.Attach(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir, v
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil { // not lazily: nothing of ours may keep the mount busy
		t.Fatalf("unmount %s: %v", dir, err)
	}
}

func sameTree(t *testing.T, what, dir, want string, o testfs.Options) {
	t.Helper()
	want, err := testfs.Canonical(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := testfs.Diff(want, testfs.Fingerprint(dir, o)); diff != "" {
		t.Errorf("%s is not as expected:\n%s", what, diff)
	}
}

// mustFail checks that neither Open nor, if it can know, Supports takes spec, and what Open says.
func mustFail(t *testing.T, b Backend, spec layer.Spec, unsupported bool, words ...string) {
	t.Helper()
	v, err := b.Open(context.Background(), spec)
	if err == nil {
		v.Close()
		t.Fatalf("Open(%v) succeeded, want an error with %q", spec, words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Open: %v\nwant %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("Open: more than one line: %v", err)
	}
	if got := errors.Is(err, errors.ErrUnsupported); got != unsupported {
		t.Errorf("Open: %v: is it ErrUnsupported? %v, want %v", err, got, unsupported)
	}
}

func TestUnion(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t,
			"dir d\nfile d/top \"top\"\nfile both \"upper one\"\nwhiteout hidden",
			"dir d mode=0700\nfile d/bottom \"bottom\"\nfile both \"lower one\"\nfile hidden \"x\"\nfile gone \"y\"")
		if err := b.Supports(context.Background(), spec); err != nil {
			t.Fatalf("Supports: %v", err)
		}
		sameTree(t, "work after Supports", spec.Work, "", testfs.Options{})
		v := open(t, b, spec)
		if v.FD() < 0 {
			t.Error("no descriptor of the detached mount")
		}
		if v.Served() {
			t.Error("the kernel's view says that this process serves it")
		}
		dir := testfs.TempDir(t)
		if err := v.Attach(dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
		if v.FD() != -1 {
			t.Error("the descriptor is still there, and keeps the mount busy")
		}
		if err := v.Attach(dir); err == nil {
			t.Error("attached a second time")
		}
		sameTree(t, "union", dir, "dir d\nfile d/top \"top\"\nfile d/bottom \"bottom\"\nfile both \"upper one\"\nfile gone \"y\"",
			testfs.Options{})

		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
		testfs.Write(t, dir, `file d/new "new"`)
		sameTree(t, "upper", spec.Upper, "dir d\nfile d/new \"new\"\nwhiteout gone", testfs.Options{Layer: true})
		unmount(t, dir)
	})
}

func TestOneLayer(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		lower := testfs.Layers(t, 1)[0]
		const tree = "dir d mode=0750 owner=1:2\nfile d/f \"text\"\nsymlink s -> d/f"
		testfs.Write(t, lower, tree+"\nwhiteout w")
		spec := layer.Spec{Lower: []string{lower}}
		if err := b.Supports(context.Background(), spec); err != nil {
			t.Errorf("Supports: %v", err)
		}
		dir, _ := attach(t, b, spec)
		sameTree(t, "union", dir, tree, testfs.Options{})
		if err := os.Mkdir(filepath.Join(dir, "new"), 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("mkdir in a union without upper layer: %v, want EROFS", err)
		}
		unmount(t, dir)
	})
}

func TestOptions(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		for _, test := range []struct {
			options string
			want    []string // among the options of the file system
			flags   int64    // of statfs(2), from the flags of mount and file system
			source  string
		}{
			{"", []string{"rw"}, 0, "overlay"},
			{"redirect_dir=on,metacopy=on,index=on", []string{"rw", "redirect_dir=on", "metacopy=on", "index=on"}, 0, "overlay"},
			{"redirect_dir=nofollow", []string{"rw", "redirect_dir=nofollow"}, 0, "overlay"},
			{"ro,fsname=a b", []string{"ro"}, unix.ST_RDONLY, "a b"},
			{"nosuid,nodev,noexec", []string{"rw"}, unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC, "overlay"},
			{"userxattr", []string{"rw", "redirect_dir=nofollow", "userxattr"}, 0, "overlay"},
		} {
			t.Run(test.options, func(t *testing.T) {
				spec := newSpec(t, `file f "1"`)
				parsed, unknown, err := layer.ParseOptions(test.options)
				if err != nil || len(unknown) > 0 {
					t.Fatal(unknown, err)
				}
				spec.Options = parsed.Options
				dir, _ := attach(t, b, spec)
				m := findTestMount(t, dir)
				if m.FSType != "overlay" || m.Source != test.source {
					t.Errorf("type %q, source %q, want overlay and %q", m.FSType, m.Source, test.source)
				}
				options := strings.Split(m.Options, ",")
				for _, w := range test.want {
					if !slices.Contains(options, w) {
						t.Errorf("options %s: no %q", m.Options, w)
					}
				}
				if slices.Contains(options, "userxattr") != spec.Options.UserXattr {
					t.Errorf("options %s: userxattr was asked for: %v", m.Options, spec.Options.UserXattr)
				}
				var st unix.Statfs_t
				if err := unix.Statfs(dir, &st); err != nil {
					t.Fatal(err)
				}
				const flags = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
				if st.Flags&flags != test.flags {
					t.Errorf("flags %#x, want %#x", st.Flags&flags, test.flags)
				}
				unmount(t, dir)
			})
		}
	})
}

func TestVolatile(t *testing.T) {
	needOverlay(t)
	spec := newSpec(t, `file f "1"`)
	spec.Options.Volatile = true
	dir, v := attach(t, Backend{}, spec)
	if _, err := os.Stat(spec.Work + "/work/incompat/volatile"); err != nil {
		t.Errorf("a volatile mount leaves no mark: %v", err)
	}
	unmount(t, dir)
	v.Close()
	mustFail(t, Backend{}, spec, false, "volatile", "remove")
}

func findTestMount(t *testing.T, dir string) mountinfo.Entry {
	t.Helper()
	mounts, err := mountinfo.Read()
	if err != nil {
		t.Fatal(err)
	}
	m, ok := mountinfo.Top(mounts, dir)
	if !ok {
		t.Fatalf("nothing is mounted on %s", dir)
	}
	return m
}

// Names that mean something in option texts, and names that are too long for a string of fsconfig.
func TestNames(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		for _, name := range []string{`a:b,c\d"e`, "new\nline and space", `\`, ",upperdir=x", strings.Repeat("long", 60)} {
			t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
				dirs := testfs.Layers(t, 4)
				for i := range dirs {
					dirs[i] = filepath.Join(dirs[i], name)
					if err := os.Mkdir(dirs[i], 0o755); err != nil {
						t.Fatal(err)
					}
				}
				testfs.Write(t, dirs[0], `file a "1"`)
				testfs.Write(t, dirs[1], `file b "2"`)
				spec := layer.Spec{Lower: dirs[:2], Upper: dirs[2], Work: dirs[3]}
				dir, v := attach(t, b, spec)
				testfs.Write(t, dir, `file c "3"`)
				sameTree(t, "union", dir, "file a \"1\"\nfile b \"2\"\nfile c \"3\"", testfs.Options{})
				sameTree(t, "upper", spec.Upper, `file c "3"`, testfs.Options{Layer: true})
				v.Close()
				mustFail(t, b, spec, false, "is in use by the overlay on")
				unmount(t, dir)
			})
		}
	})
}

func TestRelativeNames(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		absolute := newSpec(t, `file f "1"`)
		t.Chdir(filepath.Dir(absolute.Upper))
		spec := layer.Spec{
			Lower: []string{filepath.Base(absolute.Lower[0])},
			Upper: filepath.Base(absolute.Upper),
			Work:  filepath.Base(absolute.Work),
		}
		dir, v := attach(t, b, spec)
		sameTree(t, "union", dir, `file f "1"`, testfs.Options{})
		v.Close()
		t.Chdir("/")
		mustFail(t, b, absolute, false, "is in use by the overlay on", dir)
		unmount(t, dir)
	})
}

func TestManyLayers(t *testing.T) {
	best := needOverlay(t)
	lowers := testfs.Layers(t, maxLayers+1)
	var want []string
	for i, dir := range lowers {
		testfs.Write(t, dir, fmt.Sprintf("file all \"%d\"\nfile f%d", i, i))
		want = append(want, fmt.Sprintf("file f%d", i))
	}
	want = append(want[:maxLayers], `file all "0"`)
	for _, f := range []form{byFD, byStrings} {
		t.Run(f.String(), func(t *testing.T) {
			if f < best {
				testfs.Skip(t, "this kernel takes no layers as %s", f)
			}
			dir, _ := attach(t, Backend{form: f}, layer.Spec{Lower: lowers[:maxLayers]})
			sameTree(t, "union", dir, strings.Join(want, "\n"), testfs.Options{})
			unmount(t, dir)
		})
	}
	t.Run("one too many", func(t *testing.T) {
		spec := layer.Spec{Lower: lowers}
		mustFail(t, Backend{}, spec, true, "501 lower layers", "500", "--backend fuse")
		if err := (Backend{}).Supports(context.Background(), spec); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Supports: %v", err)
		}
	})
	t.Run("as text", func(t *testing.T) {
		spec := layer.Spec{Lower: lowers[:maxLayers]}
		mustFail(t, Backend{form: byText}, spec, true, "mount(2) takes 4095", "shorter names", "Linux 6.7", "--backend fuse")
		if err := (Backend{form: byText}).Supports(context.Background(), spec); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Supports: %v", err)
		}
	})
}

func TestWait(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		dir, v := attach(t, b, newSpec(t, `file f "1"`))
		waited := make(chan error, 1)
		go func() { waited <- v.Wait() }()

		other := testfs.TempDir(t) // other mounts come and go: they wake up Wait, but do not end it
		if err := unix.Mount("x", other, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		unmount(t, other)
		select {
		case err := <-waited:
			t.Fatalf("Wait returned while the union is mounted: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		unmount(t, dir)
		select {
		case err := <-waited:
			if err != nil {
				t.Errorf("Wait: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Wait does not return after the unmount")
		}
	})
}

// A mount that gets the id and device number of the one that is waited for is not taken for it.
func TestWaitReusedID(t *testing.T) {
	needOverlay(t)
	dir, v := attach(t, Backend{}, newSpec(t, `file f "1"`))
	was := *v.(*view).attached
	unmount(t, dir)
	other, _ := attach(t, Backend{}, newSpec(t, `file f "2"`))
	entries, err := mountinfo.Read()
	if err != nil {
		t.Fatal(err)
	}
	now, _ := mountinfo.Top(entries, other)
	was.ID, was.Dev = now.ID, now.Dev
	if there, err := isMounted(&was); there || err != nil {
		t.Errorf("isMounted = %v, %v of a mount that is gone", there, err)
	}
	unmount(t, other)
}

func TestAttachErrors(t *testing.T) {
	needOverlay(t)
	spec := newSpec(t, `file f "1"`)
	v := open(t, Backend{}, spec)
	for target, want := range map[string]string{
		filepath.Join(spec.Upper, "missing"): "does not exist",
		filepath.Join(spec.Lower[0], "f"):    "is not a directory",
	} {
		if err := v.Attach(target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Attach(%s): %v, want %q", target, err, want)
		}
	}
	if err := v.Wait(); err != nil {
		t.Errorf("Wait for what is mounted nowhere: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := v.Attach(spec.Upper); err == nil {
		t.Error("attached after Close")
	}
	again := open(t, Backend{}, spec) // Close has released the lock, and the union
	again.Close()
}

func TestCancelled(t *testing.T) {
	needOverlay(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	spec := newSpec(t, `file f "1"`)
	if _, err := (Backend{}).Open(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
	if err := (Backend{}).Supports(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("Supports: %v", err)
	}
}

func TestDataOnly(t *testing.T) {
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, "file f size=4 metacopy redirect=/sub/data", "")
		spec.Lower, spec.Data = spec.Lower[:1], testfs.Layers(t, 2)
		testfs.Write(t, spec.Data[1], "dir sub\nfile sub/data \"data\"")
		dir, v := attach(t, b, spec)
		sameTree(t, "the union", dir, `file f "data"`, testfs.Options{})
		unmount(t, dir)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}

		spec.Data[0] = spec.Lower[0]
		mustFail(t, b, spec, true, "are the same directory")
	})
}
