package transport

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-1": 2, "0-3,8": 5, "0,2-3,5": 4} {
		if got, err := countList(list); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", list, got, err, want)
		}
	}
	for _, list := range []string{"", "x", "3-1", "0-", "0,,1"} {
		if got, err := countList(list); err == nil {
			t.Errorf("%q: %d; want an error", list, got)
		}
	}
}

// waitingFS has no files. To look up a name that begins with "slow" takes until it is released, or the caller is interrupted.
type waitingFS struct {
	fuse.RawFileSystem
	arrived     chan struct{}
	release     chan struct{}
	interrupted chan struct{}
}

func (fs *waitingFS) Lookup(cancel <-chan struct{}, _ *fuse.InHeader, name string, _ *fuse.EntryOut) fuse.Status {
	if !strings.HasPrefix(name, "slow") {
		return fuse.ENOENT
	}
	fs.arrived <- struct{}{}
	select {
	case <-fs.release:
		return fuse.ENOENT
	case <-cancel:
		fs.interrupted <- struct{}{}
		return fuse.EINTR
	}
}

func (fs *waitingFS) GetAttr(_ <-chan struct{}, _ *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = fuse.Attr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 1}
	out.SetTimeout(time.Hour)
	return fuse.OK
}

// answerer is a Handler for a RawFileSystem.
type answerer struct{ *fuse.ProtocolServer }

func (a answerer) Answer(m *Message) int {
	n, status := a.HandleRequest(m.In, m.Out)
	if !status.Ok() {
		return m.Fail(unix.Errno(status))
	}
	return n
}

func (answerer) Answered(*Message) {}

// served is a file system that this process serves, mounted on dir.
type served struct {
	*Conn
	fs   *waitingFS
	dir  string
	once sync.Once
}

// onBoth runs f with a file system on each transport.
func onBoth(t *testing.T, f func(t *testing.T, s *served)) {
	testfs.NeedRoot(t)
	for name, mode := range map[string]Mode{"dev-fuse": Off, "io_uring": On} {
		t.Run(name, func(t *testing.T) {
			if text, err := os.ReadFile(Parameter); mode == On && strings.TrimSpace(string(text)) != "Y" {
				testfs.Skip(t, "FUSE over io_uring is not offered: %v", err)
			}
			f(t, mountWaitingOn(t, mode))
		})
	}
}

func mountWaitingOn(t *testing.T, mode Mode) *served {
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{Conn: c, dir: t.TempDir(), fs: &waitingFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		arrived:       make(chan struct{}, 100), release: make(chan struct{}), interrupted: make(chan struct{}, 100),
	}}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", c.FD())
	if err := unix.Mount("test", s.dir, "fuse", 0, options); err != nil {
		c.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.letGo()                                // whoever a failed test has left in a request
		_ = unix.Unmount(s.dir, unix.MNT_DETACH) // EINVAL: the test has done so
		if err := c.Wait(); err != nil {
			t.Errorf("served until %v", err)
		}
		c.Close()
	})
	began := c.Serve(answerer{fuse.NewProtocolServer(s.fs, &fuse.MountOptions{MaxWrite: MaxData})}, Options{IOUring: mode})
	select {
	case err := <-began:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("INIT was not answered")
	}
	return s
}

// letGo ends all slow requests.
func (s *served) letGo() { s.once.Do(func() { close(s.fs.release) }) }

// onCPU runs f in a thread that stays on the first CPU.
func onCPU(f func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		var cpu unix.CPUSet
		cpu.Set(0)
		_ = unix.SchedSetaffinity(0, &cpu)
		f()
	}()
}

// missing looks up a name that is not there.
func (s *served) missing(name string) error {
	var st unix.Stat_t
	for {
		switch err := unix.Lstat(filepath.Join(s.dir, name), &st); err {
		case unix.EINTR:
		case unix.ENOENT:
			return nil
		default:
			return fmt.Errorf("stat %s: %v", name, err)
		}
	}
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 s: %s", what)
	}
}

// A request that takes long holds up nobody, not even on the same CPU, where over io_uring they share a queue.
func TestSlowRequestsHoldUpNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, s *served) {
		const slow = 10
		var all sync.WaitGroup
		for i := range slow {
			all.Add(1)
			onCPU(func() {
				defer all.Done()
				if err := s.missing("slow" + strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
			within(t, fmt.Sprintf("slow request %d behind others", i), s.fs.arrived)
		}
		for i := range 100 {
			done := make(chan struct{})
			onCPU(func() {
				defer close(done)
				if err := s.missing("quick" + strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
			within(t, "a quick request behind slow ones", done)
		}
		s.letGo()
		all.Wait()
	})
}

// Many slow requests at once from one CPU, as many as there are entries in reserve, and more behind them: each gets a thread, and
// quick ones are answered all the same.
func TestBurst(t *testing.T) {
	onBoth(t, func(t *testing.T, s *served) {
		const burst, more = reserved, 100
		var all sync.WaitGroup
		slow := func(i int) {
			all.Add(1)
			onCPU(func() {
				defer all.Done()
				if err := s.missing("slow" + strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range burst {
			slow(i)
		}
		for i := range burst {
			within(t, fmt.Sprintf("slow request %d of %d", i, burst), s.fs.arrived)
		}
		for i := range more {
			slow(burst + i)
			within(t, fmt.Sprintf("slow request %d behind a burst", i), s.fs.arrived)
		}
		done := make(chan struct{})
		onCPU(func() {
			defer close(done)
			if err := s.missing("quick"); err != nil {
				t.Error(err)
			}
		})
		within(t, "a quick request behind a burst of slow ones", done)
		s.letGo()
		all.Wait()
	})
}

func TestInterrupt(t *testing.T) {
	onBoth(t, func(t *testing.T, s *served) {
		cmd := exec.Command("stat", filepath.Join(s.dir, "slow"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, "the slow request", s.fs.arrived)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		within(t, "the interruption", s.fs.interrupted)
		_ = cmd.Wait()
	})
}

// The end of the file system ends every thread, also while requests are at work.
func TestUnmount(t *testing.T) {
	onBoth(t, func(t *testing.T, s *served) {
		if err := s.missing("quick"); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		onCPU(func() {
			defer close(done)
			_ = s.missing("slow")
		})
		within(t, "the slow request", s.fs.arrived)
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		s.letGo()
		within(t, "the answer to a request after the end", done)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := s.Wait(); err != nil {
				t.Error(err)
			}
		}()
		within(t, "the end of all threads", ended)
	})
}

// Nobody waits for ever for the kernel to have taken an answer.
func TestSettled(t *testing.T) {
	onBoth(t, func(t *testing.T, s *served) {
		for i := range 50 {
			if err := s.missing(strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(20 * time.Second); !s.Settled(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("an answer that the caller has seen is not settled after 20 s")
			}
		}
	})
}
