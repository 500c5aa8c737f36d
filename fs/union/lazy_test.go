package union_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// lazyUnion is a union over a lower file "dir/f" with 8 MiB of noise.
type lazyUnion struct {
	*testing.T
	spec   layer.Spec
	target string
	want   []byte
}

func newLazyUnion(t *testing.T) *lazyUnion {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	u := &lazyUnion{T: t, target: dirs[3], want: make([]byte, 8<<20+100)}
	u.spec = layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	rand.New(rand.NewSource(1)).Read(u.want)
	if err := os.Mkdir(dirs[0]+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(u.lower(), u.want, 0o644); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *lazyUnion) lower() string { return u.spec.Lower[0] + "/dir/f" }
func (u *lazyUnion) upper() string { return u.spec.Upper + "/dir/f" }
func (u *lazyUnion) path() string  { return u.target + "/dir/f" }

func (u *lazyUnion) mount(mode string) *mounttest.Mount {
	u.Helper()
	return lazyServer.With(mode).Mount(u, u.spec, u.target)
}

func (u *lazyUnion) write(f *os.File, off int64, data string) {
	u.Helper()
	if _, err := f.WriteAt([]byte(data), off); err != nil {
		u.Fatal(err)
	}
	copy(u.want[off:], data)
}

// shows compares the file at path.
func (u *lazyUnion) shows(path string) {
	u.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, u.want) {
		at := 0
		for at < min(len(got), len(u.want)) && got[at] == u.want[at] {
			at++
		}
		u.Errorf("%s: %d bytes, %v; want %d; they differ at %d", path, len(got), err, len(u.want), at)
	}
}

// lazy reports whether the upper file is not complete.
func (u *lazyUnion) lazy() bool {
	u.Helper()
	_, err := unix.Getxattr(u.upper(), "trusted.overlay.metacopy", nil)
	if err != nil && err != unix.ENODATA {
		u.Fatal(err)
	}
	return err == nil
}

// begun mounts with lazy=keep and writes two pieces, of which one is synced.
func (u *lazyUnion) begun() (*mounttest.Mount, *os.File) {
	u.Helper()
	m := u.mount("lazy=keep")
	f, err := os.OpenFile(u.path(), os.O_RDWR, 0)
	if err != nil {
		u.Fatal(err)
	}
	u.Cleanup(func() { f.Close() })
	u.write(f, 1<<20+5, "one")
	if err := f.Sync(); err != nil {
		u.Fatal(err)
	}
	u.write(f, 5<<20-2, "two")
	if !u.lazy() {
		testfs.Skip(u, "the file system shares blocks or does not tell which it has")
	}
	var st unix.Stat_t
	if err := unix.Stat(u.upper(), &st); err != nil || st.Blocks*512 > 1<<20 {
		u.Errorf("a few bytes were written, and the copy has %d KiB, %v", st.Blocks/2, err)
	}
	return m, f
}

// TestLazyRetried makes the copying in the background fail, which nobody is told of, and succeed later.
func TestLazyRetried(t *testing.T) {
	u := newLazyUnion(t)
	u.spec.Options.FUSE.Lazy = layer.LazyOn
	s := newFaultServer(t)
	defer s.end()
	tell := func(c command) {
		t.Helper()
		if _, err := s.tell(c); err != nil {
			t.Fatal(err)
		}
	}
	tell(command{Mount: &u.spec, Target: u.target, Deny: "fdatasync"})
	defer func() {
		if err := patiently(func() error { return unix.Unmount(u.target, 0) }); err != nil {
			t.Fatal(err)
		}
		tell(command{Unmounted: true})
		u.shows(u.upper())
	}()
	f, err := os.OpenFile(u.path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u.write(f, 5, "one")
	if !u.lazy() {
		testfs.Skip(t, "the file system shares blocks or does not tell which it has")
	}
	time.Sleep(500 * time.Millisecond) // in which it fails
	if !u.lazy() {
		t.Error("the file is complete though its data could not be made durable")
	}
	u.write(f, 7<<20, "two")
	u.shows(u.path())
	tell(command{Allow: true})
	for end := time.Now().Add(30 * time.Second); u.lazy(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the rest was not copied though nothing fails any more")
		}
	}
	u.shows(u.path())
}

// TestLazyKilled kills the server at some time after a write; the next mount goes on where it was.
func TestLazyKilled(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			u := newLazyUnion(t)
			m := u.mount("lazy=on")
			f, err := os.OpenFile(u.path(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			u.write(f, 1<<20+5, "one")
			u.write(f, 5<<20-2, "two")
			time.Sleep(20*time.Millisecond + time.Duration(i)*2*time.Millisecond) // fillDelay, and a while
			m.Kill()
			f.Close()
			m = u.mount("lazy=on")
			u.shows(u.path())
			m.Unmount()
			if u.lazy() {
				t.Error("the file is not complete after the end of the union")
			}
			u.shows(u.upper())
		})
	}
}

// TestLazyIsFoundAgain: nobody uses the file after the server was killed, and it is completed all the same.
func TestLazyIsFoundAgain(t *testing.T) {
	u := newLazyUnion(t)
	m, f := u.begun()
	m.Kill()
	f.Close()
	m = u.mount("lazy=off")
	m.Unmount()
	if u.lazy() {
		t.Error("the file is not complete after the end of the union")
	}
	u.shows(u.upper())
	if left, err := os.ReadDir(u.spec.Work); err != nil || len(left) != 1 {
		t.Errorf("left in the work directory: %v, %v", left, err)
	}
}

func TestLazyKeep(t *testing.T) {
	u := newLazyUnion(t)
	m, f := u.begun()
	f.Close()
	m.Unmount()
	if !u.lazy() {
		t.Error("the file was completed")
	}
	m = u.mount("lazy=keep")
	u.shows(u.path())
	m.Unmount()
}

// TestKernelRefusesLazy: an overlay shows the file in no mode; nor if it takes one mark for an ordinary metacopy. Once the
// file is complete it does, though the other mark may be there still.
func TestKernelRefusesLazy(t *testing.T) {
	u := newLazyUnion(t)
	m, f := u.begun()
	f.Close()
	m.Unmount()
	t.Run("both marks", u.refused)
	const redirect, metacopy = "trusted.overlay.redirect", "trusted.overlay.metacopy"
	marks := map[string][]byte{}
	for _, attr := range []string{redirect, metacopy} {
		value := make([]byte, 100)
		n, err := unix.Getxattr(u.upper(), attr, value)
		if err != nil {
			t.Fatal(err)
		}
		marks[attr] = value[:n]
	}
	set := func(attr string, value []byte) {
		t.Helper()
		if err := unix.Setxattr(u.upper(), attr, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(metacopy, nil)
	t.Run("an ordinary metacopy", u.refused)
	set(metacopy, marks[metacopy])

	m = u.mount("lazy=on")
	u.shows(u.path())
	m.Unmount()
	set(redirect, marks[redirect])
	u.onKernel(layer.Options{Metacopy: true}, func() { u.shows(u.path()) })
	u.onKernel(layer.Options{}, func() { u.shows(u.path()) })
}

// onKernel runs f while the kernel serves the union.
func (u *lazyUnion) onKernel(opt layer.Options, f func()) {
	u.Helper()
	spec := u.spec
	spec.Options = opt
	v, err := overlayfs.Backend{}.Open(context.Background(), spec)
	if err != nil {
		u.Fatal(err)
	}
	defer v.Close()
	if err := v.Attach(u.target); err != nil {
		u.Fatal(err)
	}
	defer unix.Unmount(u.target, 0)
	f()
}

func (u *lazyUnion) refused(t *testing.T) {
	for name, opt := range map[string]layer.Options{
		"metacopy=off": {},
		"metacopy=on":  {Metacopy: true},
		"redirects":    {RedirectDir: layer.RedirectOn},
		"no redirects": {RedirectDir: layer.RedirectNoFollow},
		"read-only":    {ReadOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			u.onKernel(opt, func() {
				if got, err := os.ReadFile(u.path()); err == nil {
					t.Errorf("%d bytes are read", len(got))
				}
				if err := os.Chmod(u.path(), 0o600); err == nil {
					t.Error("the mode can be changed")
				}
			})
		})
	}
}

// TestLazyLowerChanged: the lower file is another one than that which was copied in part.
func TestLazyLowerChanged(t *testing.T) {
	u := newLazyUnion(t)
	m, f := u.begun()
	f.Close()
	m.Unmount()
	if err := os.Chtimes(u.lower(), time.Unix(5, 0), time.Unix(5, 0)); err != nil {
		t.Fatal(err)
	}
	m = u.mount("lazy=on")
	if got, err := os.ReadFile(u.path()); !errors.Is(err, unix.EIO) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	m.Unmount()
}
