package mount_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// worker is a child process that uses a union by paths until its input ends. Any error ends it.
var worker = testfs.NewFunc("worker", func(args []string, in *bufio.Reader, out io.Writer) error {
	stop := make(chan struct{})
	go func() {
		_, _ = in.ReadByte()
		close(stop)
	}()
	rounds := 0
	for ; ; rounds++ {
		select {
		case <-stop:
			fmt.Fprintln(out, rounds)
			return nil
		default:
		}
		if err := round(args[0], args[1], rounds); err != nil {
			return fmt.Errorf("round %d: %w", rounds, err)
		}
	}
})

// round opens, reads, makes, changes, renames, lists and removes files by their paths, and checks what it finds.
func round(dir, me string, n int) error {
	for i := range 4 {
		if err := hasContent(fmt.Sprint(dir, "/d/low", i), fmt.Sprint("low", i)); err != nil {
			return err
		}
	}
	own := dir + "/d/own" + me
	if n > 0 { // what was left behind by the last round, perhaps in another backend's union
		if err := hasContent(own, fmt.Sprint(me, n-1)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(own, fmt.Append(nil, me, n), 0o644); err != nil {
		return err
	}
	if err := hasContent(own, fmt.Sprint(me, n)); err != nil {
		return err
	}
	if err := again(func() error { return os.Rename(own, own+".moved") }); err != nil {
		return err
	}
	if _, err := os.Lstat(own); !os.IsNotExist(err) {
		return fmt.Errorf("%s is still there: %v", own, err)
	}
	if err := os.Chmod(own+".moved", 0o600); err != nil {
		return err
	}
	if err := again(func() error { return os.Rename(own+".moved", own) }); err != nil {
		return err
	}
	sub := dir + "/sub" + me
	if err := os.Mkdir(sub, 0o755); err != nil {
		return err
	}
	if err := again(func() error { return os.Link(own, sub+"/link") }); err != nil {
		return err
	}
	entries, err := os.ReadDir(sub)
	if err != nil || len(entries) != 1 {
		return fmt.Errorf("%s: %v, %w", sub, entries, err)
	}
	if err := os.Remove(sub + "/link"); err != nil {
		return err
	}
	if err := os.Remove(sub); err != nil {
		return err
	}
	entries, err = os.ReadDir(dir + "/d")
	if err != nil || len(entries) < 5 {
		return fmt.Errorf("%s: %v, %w", dir+"/d", entries, err)
	}
	return nil
}

// again is for what takes two paths: the kernel looks up one after the other, and does not look again if one led to
// the old union and one to the new.
func again(do func() error) error {
	err := do()
	if errors.Is(err, unix.EXDEV) {
		err = do()
	}
	return err
}

func hasContent(path, want string) error {
	got, err := os.ReadFile(path)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s: content %q, want %q", path, got, want)
	}
	return err
}

// Processes that open files by their paths see no error and miss no file while the union is switched, again and again.
func TestSwitchUnderLoad(t *testing.T) {
	const switches, workers = 50, 8
	s := newSwitcher(t, "fuse", "dir d\nfile d/low0 \"low0\"\nfile d/low1 \"low1\"", "dir d\nfile d/low2 \"low2\"\nfile d/low3 \"low3\"")
	var procs []*testfs.Process
	for i := range workers {
		procs = append(procs, worker.Start(t, s.dir, fmt.Sprint("w", i)))
	}
	var took []time.Duration
	for range switches {
		took = append(took, s.flip(order{}).Took)
		time.Sleep(10 * time.Millisecond)
	}
	rounds := 0
	for _, p := range procs {
		p.In.Close()
		text, _ := p.Out.ReadString('\n')
		if err := p.Wait(limit); err != nil {
			t.Error(err)
		}
		n := 0
		fmt.Sscan(text, &n)
		rounds += n
	}
	var sum, longest time.Duration
	for _, d := range took {
		sum += d
		longest = max(longest, d)
	}
	t.Logf("%d switches while %d processes made %d rounds; callers waited for %v on average, %v at most", switches, workers, rounds, sum/switches, longest)
}

// Open descriptors go on in the old union, in both directions, and what they write is in the new one.
func TestSwitchLazy(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		w, err := os.OpenFile(s.path("a"), os.O_RDWR, 0)
		must(t, err)
		defer w.Close()
		r, err := os.Open(s.path("a"))
		must(t, err)
		defer r.Close()
		d, err := os.Open(s.path("d"))
		must(t, err)
		defer d.Close()
		_, err = w.WriteAt([]byte("before"), 0)
		must(t, err)

		reply := s.flip(order{Lazy: true})
		if reply.Left < 3 {
			t.Errorf("%d are left in the old union, want 3 descriptors", reply.Left)
		}
		// Both see what either writes.
		_, err = w.WriteAt([]byte("through the old one"), 0)
		must(t, err)
		eventually(t, func() error { return hasContent(s.path("a"), "through the old one") })
		must(t, w.Truncate(3))
		eventually(t, func() error { return hasContent(s.path("a"), "thr") })
		must(t, os.WriteFile(s.path("a"), []byte("through the new one"), 0))
		eventually(t, func() error {
			got := make([]byte, 100)
			n, err := r.ReadAt(got, 0)
			if err != io.EOF || string(got[:n]) != "through the new one" {
				return fmt.Errorf("the old descriptor reads %q, %v", got[:n], err)
			}
			return nil
		})
		// A name that is given to another file does not lead the old descriptors astray.
		must(t, os.Rename(s.path("a"), s.path("moved")))
		must(t, os.WriteFile(s.path("a"), []byte("another"), 0o644))
		must(t, w.Chmod(0o600))
		must(t, w.Sync())
		eventually(t, func() error {
			if st, err := os.Stat(s.path("moved")); err != nil || st.Mode() != 0o600 || st.Size() != 19 {
				return fmt.Errorf("stat of the moved file: %v, %v", st.Mode(), err)
			}
			return nil
		})
		names, err := d.Readdirnames(-1)
		if err != nil || strings.Join(names, " ") != "x y" && strings.Join(names, " ") != "y x" {
			t.Errorf("the old directory has %q, %v", names, err)
		}
		// Names are not for the old union to change any more.
		fd, err := unix.Openat(int(d.Fd()), "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		if backend == "fuse" && err != unix.ESTALE {
			t.Errorf("a new file in the old union: %v, want ESTALE", err)
		}
		must(t, os.WriteFile(s.path("d/new2"), nil, 0o644))
	})
}

// The overlay is read-only behind those that are left in it, if they do not write.
func TestSwitchLazyReadOnly(t *testing.T) {
	s := newSwitcher(t, "kernel", low)
	defer closing(t, s.path("d"), os.O_RDONLY)()
	d, err := os.Open(s.path("d"))
	must(t, err)
	defer d.Close()
	s.flip(order{Lazy: true})
	fd, err := unix.Openat(int(d.Fd()), "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
	if err != unix.EROFS {
		t.Errorf("a new file in the old overlay: %d, %v, want EROFS", fd, err)
	}
	fd, err = unix.Openat(int(d.Fd()), "x", unix.O_RDONLY, 0)
	must(t, err)
	must(t, unix.Close(fd))
}

// A process writes on and on through one descriptor while the union is switched; nothing of it is lost.
func TestSwitchLazyWriter(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		w, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		must(t, err)
		var want bytes.Buffer
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					done <- w.Close()
					return
				default:
				}
				line := fmt.Sprintln("line", i)
				want.WriteString(line)
				if _, err := w.WriteString(line); err != nil {
					done <- err
					return
				}
			}
		}()
		time.Sleep(20 * time.Millisecond)
		s.flip(order{Lazy: true})
		time.Sleep(50 * time.Millisecond)
		close(stop)
		must(t, <-done)
		eventually(t, func() error {
			got, err := os.ReadFile(s.path("log"))
			if err != nil || !bytes.Equal(got, want.Bytes()) {
				return fmt.Errorf("%d bytes, %v; want %d that were written", len(got), err, want.Len())
			}
			return nil
		})
		before := s.tree()
		s.flip(order{})
		if d := testfs.Diff(before, s.tree()); d != "" {
			t.Errorf("the tree differs:\n%s", d)
		}
	})
}

// eventually is for what another file system may show late: see sharedTTL in fs/union.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for range 20 {
		if err = check(); err == nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Error(err)
}
