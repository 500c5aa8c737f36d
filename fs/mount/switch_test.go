package mount_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

const low = "file a \"one\"\nfile b \"two\"\nfile gone\ndir d\nfile d/x \"x\"\nfile d/y\ndir gone2\nfile gone2/z\nsymlink l -> a"

func each(t *testing.T, check func(t *testing.T, backend string)) {
	for _, backend := range []string{"fuse", "kernel"} {
		t.Run("from "+backend, func(t *testing.T) { check(t, backend) })
	}
}

// Switching there and back leaves the same tree, and what is changed between is there.
func TestSwitchThereAndBack(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low, "file e\ndir d\nfile d/z")
		step := 0
		change := func() {
			step++
			must(t, os.WriteFile(s.path(fmt.Sprint("new", step)), []byte("x"), 0o644))
			must(t, os.WriteFile(s.path("a"), fmt.Appendf(nil, "a%d", step), 0o644))
			must(t, os.WriteFile(s.path(fmt.Sprint("d/w", step)), nil, 0o600))
			switch step {
			case 1:
				must(t, os.Remove(s.path("gone")))
				must(t, os.RemoveAll(s.path("gone2")))
			case 2:
				must(t, os.Mkdir(s.path("gone2"), 0o755)) // opaque
				must(t, os.Rename(s.path("b"), s.path("c")))
			case 3:
				must(t, os.Remove(s.path("d/z")))
			}
		}
		for range 4 {
			change()
			before := s.tree()
			s.flip(order{})
			if d := testfs.Diff(before, s.tree()); d != "" {
				t.Fatalf("switched to %s, the tree differs:\n%s", s.backend, d)
			}
		}
		change()
		// Also for who mounts it afresh.
		before := s.tree()
		s.end()
		s.start(s.other())
		if d := testfs.Diff(before, s.tree()); d != "" {
			t.Fatalf("mounted with %s, the tree differs:\n%s", s.backend, d)
		}
	})
}

// A union of the kernel's that nobody holds a lock of is taken over as well.
func TestSwitchForeign(t *testing.T) {
	s := newSwitcher(t, "kernel", low)
	s.flip(order{Forget: true})
	must(t, os.WriteFile(s.path("new"), nil, 0o644))
}

// Options, and flags that the mount was given later, survive.
func TestSwitchKeepsFlags(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		must(t, unix.Mount("", s.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_RDONLY, ""))
		s.flip(order{})
		var st unix.Statfs_t
		must(t, unix.Statfs(s.dir, &st))
		if want := int64(unix.ST_NOSUID | unix.ST_NOEXEC | unix.ST_RDONLY); st.Flags&want != want {
			t.Errorf("flags %#x, want %#x", st.Flags, want)
		}
		must(t, unix.Mount("", s.dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
		must(t, os.WriteFile(s.path("new"), nil, 0o644))
		s.flip(order{})
	})
}

func TestSwitchReadOnlyAndVolatile(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low, "file e")
		s.end()
		volatile := s.spec
		volatile.Options.Volatile = true
		readOnly := s.spec
		readOnly.Upper, readOnly.Work = "", ""
		s.spec = readOnly
		s.start(backend)
		before := s.tree()
		s.flip(order{})
		s.flip(order{})
		if d := testfs.Diff(before, s.tree()); d != "" {
			t.Errorf("the tree differs:\n%s", d)
		}
		s.end()
		s.spec = volatile
		s.start(backend)
		for i := range 4 {
			must(t, os.WriteFile(s.path(fmt.Sprint("new", i)), nil, 0o644))
			s.flip(order{})
		}
		s.end()
		// The kernel leaves its mark for the user to remove.
		must(t, os.RemoveAll(s.spec.Work+"/work/incompat"))
	})
}

// Who holds the union keeps it from being switched, and is named.
func TestSwitchRefusedToHolders(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		must(t, os.Chmod(s.path("a"), 0o755))
		self := fmt.Sprint(os.Getpid())
		for _, c := range []struct {
			name string
			hold func(t *testing.T) (release func())
			want string
		}{
			{"a file that is read", func(t *testing.T) func() { return closing(t, s.path("a"), os.O_RDONLY) }, " read " + s.path("a")},
			{"a file that is written", func(t *testing.T) func() { return closing(t, s.path("b"), os.O_RDWR) }, " write " + s.path("b")},
			{"a directory", func(t *testing.T) func() { return closing(t, s.path("d"), os.O_RDONLY) }, " read " + s.path("d")},
			{"a path", func(t *testing.T) func() { return closing(t, s.path("d/x"), unix.O_PATH) }, " path " + s.path("d/x")},
			{"a working directory", func(t *testing.T) func() {
				cmd := exec.Command("sleep", "60")
				cmd.Dir = s.path("d")
				must(t, cmd.Start())
				self = fmt.Sprint(cmd.Process.Pid)
				return func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); self = fmt.Sprint(os.Getpid()) }
			}, " cwd  " + s.path("d")},
			{"a mapped file", func(t *testing.T) func() {
				f, err := os.Open(s.path("d/x"))
				must(t, err)
				data, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
				must(t, err)
				f.Close()
				return func() { must(t, unix.Munmap(data)) }
			}, " map  " + s.path("d/x")},
			{"a bind mount", func(t *testing.T) func() {
				other := testfs.TempDir(t)
				must(t, unix.Mount(s.path("d"), other, "", unix.MS_BIND, ""))
				return func() { must(t, unix.Unmount(other, 0)) }
			}, " mount  "},
		} {
			t.Run(c.name, func(t *testing.T) {
				release := c.hold(t)
				r := s.refuse(order{}, "in use by")
				// Of a mount it is told which process sees it there.
				if len(r.Held) != 1 || !strings.Contains(r.Held[0], c.want) || !strings.HasPrefix(r.Held[0], self+" ") && c.want != " mount  " {
					t.Errorf("held by %q, want process %s and %q", r.Held, self, c.want)
				}
				release()
				must(t, os.WriteFile(s.path("new"), []byte(c.name), 0o644))
				must(t, os.Remove(s.path("new")))
			})
		}
		s.flip(order{}) // nothing stays
	})
}

// What cannot be done is refused while the old union goes on.
func TestSwitchRefused(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		good := s.spec
		try := func(want string) {
			t.Helper()
			s.refuse(order{}, want)
			must(t, os.WriteFile(s.path("new"), []byte(want), 0o644))
			must(t, os.Remove(s.path("new")))
			s.spec = good
		}
		s.spec.Lower = []string{good.Lower[0] + "/none"}
		try("does not exist")
		s.spec.Lower = []string{s.dir}
		try("covered by the union itself")
		must(t, unix.Mount("none", s.path("d"), "tmpfs", 0, ""))
		s.refuse(order{}, "something is mounted inside")
		must(t, unix.Unmount(s.path("d"), 0))
		must(t, unix.Mount("none", s.dir, "tmpfs", 0, ""))
		r := s.tell(order{Backend: s.other()})
		must(t, unix.Unmount(s.dir, 0))
		if !strings.Contains(r.Err, "another mount is on") {
			t.Errorf("covered by another mount: error %q", r.Err)
		}
		if backend == "kernel" {
			must(t, unix.Mount("none", "/dev", "tmpfs", 0, ""))
			try("no FUSE on this system")
			must(t, unix.Unmount("/dev", 0))
		}
		s.flip(order{})
		// A layer that was replaced is seen where somebody has the old one open.
		must(t, os.Rename(good.Lower[0], good.Lower[0]+".old"))
		must(t, os.Mkdir(good.Lower[0], 0o755))
		if s.backend == "fuse" {
			try("another directory is in the place of layer")
		}
		must(t, os.Remove(good.Lower[0]))
		must(t, os.Rename(good.Lower[0]+".old", good.Lower[0]))
		s.flip(order{})
	})
}

// The kernel takes fewer layers.
func TestSwitchManyLayers(t *testing.T) {
	s := newSwitcher(t, "fuse", low)
	s.end()
	dir := testfs.TempDir(t)
	for i := range 500 {
		s.spec.Lower = append(s.spec.Lower, fmt.Sprint(dir, "/", i))
		must(t, os.Mkdir(s.spec.Lower[i+1], 0o755))
	}
	s.start("fuse")
	s.refuse(order{}, "more than the 500")
	s.end()
	s.spec.Lower = s.spec.Lower[:500]
	s.start("fuse")
	t.Logf("500 layers: callers wait for at most %v", s.flip(order{}).Took)
	s.flip(order{})
}

// A switch that the kernel refuses late, after the old union has come to rest, is undone.
func TestSwitchUndone(t *testing.T) {
	s := newSwitcher(t, "fuse", low)
	s.end()
	for range 2 { // the kernel stacks no overlay on an overlay on an overlay, which only shows in the end
		on := testfs.Layers(t, 2)
		must(t, unix.Mount("overlay", on[0], "overlay", 0, "lowerdir="+s.spec.Lower[0]+":"+on[1]))
		defer unix.Unmount(on[0], unix.MNT_DETACH)
		s.spec.Lower = on[:1]
	}
	s.start("fuse")
	defer s.end()
	must(t, os.Remove(s.path("gone"))) // so that a whiteout is ready to be shared
	s.refuse(order{}, "stacks file systems")
	must(t, os.Remove(s.path("a")))
	must(t, os.WriteFile(s.path("b"), []byte("changed"), 0o644))
	must(t, os.RemoveAll(s.path("d")))
	must(t, os.Mkdir(s.path("d"), 0o755))
	s.refuse(order{Lazy: true}, "stacks file systems")
	must(t, os.Remove(s.path("b")))
}

func closing(t *testing.T, path string, flags int) (release func()) {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	must(t, err)
	return func() { must(t, unix.Close(fd)) }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
