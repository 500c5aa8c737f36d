package holders

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// looper opens and closes a file again and again, until its input ends.
var looper = testfs.NewFunc("looper", func(args []string, in *bufio.Reader, _ io.Writer) error {
	end := make(chan struct{})
	go func() {
		_, _ = in.ReadByte()
		close(end)
	}()
	for {
		select {
		case <-end:
			return nil
		default:
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
		f.Close()
		time.Sleep(100 * time.Microsecond)
	}
})

// search mounts a tmpfs with a file in it.
func search(t *testing.T) (dir string, s *Search) {
	testfs.NeedRoot(t)
	dir = testfs.Tmpfs(t)
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o755))
	entries, err := mountinfo.Read()
	must(t, err)
	e, ok := mountinfo.Top(entries, dir)
	if !ok {
		t.Fatalf("nothing is mounted on %s", dir)
	}
	s, err = NewSearch(e.Device(), e.ID)
	must(t, err)
	return dir, s
}

func TestAll(t *testing.T) {
	dir, s := search(t)
	wants(t, s.All, "")

	var want []string
	self := os.Getpid()
	for _, c := range []struct {
		flags int
		mode  string
	}{{unix.O_RDONLY, "read"}, {unix.O_WRONLY, "write"}, {unix.O_RDWR, "write"}, {unix.O_PATH, "path"}} {
		fd, err := unix.Open(dir+"/file", c.flags|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		want = append(want, fmt.Sprintf("%d %d %s %s/file", self, fd, c.mode, dir))
	}
	fd, err := unix.Open(dir+"/file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	data, err := unix.Mmap(fd, 0, 1, unix.PROT_READ, unix.MAP_PRIVATE)
	must(t, err)
	must(t, unix.Close(fd))
	want = append(want, fmt.Sprintf("%d map  %s/file", self, dir))
	cmd := exec.Command("sleep", "60")
	cmd.Dir = dir
	must(t, cmd.Start())
	want = append([]string{fmt.Sprintf("%d cwd  %s", cmd.Process.Pid, dir)}, want...)
	wants(t, s.All, want...)
	wants(t, s.Open, want[:len(want)-1]...) // all but the mapping

	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	must(t, unix.Munmap(data))
	wants(t, s.Open, want[1:len(want)-1]...)
}

func TestMounts(t *testing.T) {
	dir, s := search(t)
	other := testfs.TempDir(t)
	must(t, unix.Mount(dir, other, "", unix.MS_BIND, ""))
	must(t, s.findMounts())
	wants(t, s.All, fmt.Sprintf("%d mount  %s", os.Getpid(), other))
	must(t, unix.Unmount(other, 0))
	must(t, s.findMounts())
	wants(t, s.All)

	// A namespace of its own has copies, that stay when the mount here goes.
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, cmd.Start())
	must(t, s.findMounts())
	wants(t, s.All, fmt.Sprintf("%d mount  %s", cmd.Process.Pid, dir))
	// If it ends soon it is not in the way.
	time.AfterFunc(100*time.Millisecond, func() { _ = cmd.Process.Kill() })
	left, err := s.Lasting(t.Context(), 50*time.Millisecond)
	if err != nil || len(left) > 0 {
		t.Errorf("Lasting: %v, %v", left, err)
	}
	_ = cmd.Wait()
}

// A mount that an unmount here would take away as well is not in the way.
func TestMountsOfPeers(t *testing.T) {
	testfs.NeedRoot(t)
	shared, peer := testfs.Tmpfs(t), testfs.TempDir(t)
	must(t, unix.Mount("", shared, "", unix.MS_SHARED, ""))
	must(t, unix.Mount(shared, peer, "", unix.MS_BIND, ""))
	defer unix.Unmount(peer, 0)
	dir := filepath.Join(shared, "dir")
	must(t, os.Mkdir(dir, 0o755))
	must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, 0)
	entries, err := mountinfo.Read()
	must(t, err)
	e, _ := mountinfo.Top(entries, dir)
	if _, ok := mountinfo.Top(entries, filepath.Join(peer, "dir")); !ok {
		t.Fatal("the mount did not spread")
	}
	s, err := NewSearch(e.Device(), e.ID)
	must(t, err)
	wants(t, s.All)
}

func TestLasting(t *testing.T) {
	dir, s := search(t)
	child := looper.Start(t, dir+"/file")
	defer func() {
		child.In.Close()
		must(t, child.Wait(10*time.Second))
	}()
	until := time.Now().Add(10 * time.Second)
	for found := []Holder(nil); len(found) == 0; {
		var err error
		found, err = s.All()
		must(t, err)
		if time.Now().After(until) {
			t.Fatal("the looper is never seen")
		}
	}
	left, err := s.Lasting(t.Context(), 2*time.Second)
	if err != nil || len(left) > 0 {
		t.Errorf("one that lets go: %v, %v", left, err)
	}
	f, err := os.Open(dir + "/file")
	must(t, err)
	defer f.Close()
	left, err = s.Lasting(t.Context(), 200*time.Millisecond)
	if err != nil || len(left) != 1 || left[0].PID != os.Getpid() {
		t.Errorf("one that does not: %v, %v", left, err)
	}
}

// wants checks what look finds, one line for each: PID USE MODE PATH.
func wants(t *testing.T, look func() ([]Holder, error), want ...string) {
	t.Helper()
	found, err := look()
	must(t, err)
	lines := map[string]bool{}
	for _, h := range found {
		lines[fmt.Sprintf("%d %s %s %s", h.PID, h.Use, h.Mode, h.Path)] = true
		if h.Command == "" {
			t.Errorf("%v has no command", h)
		}
	}
	for _, w := range want {
		if w != "" && !lines[w] {
			t.Errorf("not found: %q", w)
		}
		delete(lines, w)
	}
	for line := range lines {
		t.Errorf("found: %q", line)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is found reads well.
func TestString(t *testing.T) {
	h := Holder{PID: 1, Command: "init", Use: "3", Mode: "read", Path: "/m/f"}
	if got := h.String(); !strings.Contains(got, "1 (init) 3 /m/f") {
		t.Error(got)
	}
}
