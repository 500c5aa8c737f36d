package ns_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/ns"
)

// TestOrphans leaves processes to pid 1, which must reap them.
func TestOrphans(t *testing.T) {
	if out, _ := output(t, config(t, "orphans", "20")); out != "reaped\n" {
		t.Errorf("got %q", out)
	}
}

// TestProgramEndsContainer checks that what the program leaves running ends with it.
func TestProgramEndsContainer(t *testing.T) {
	c := start(t, config(t, "spawn", "3"))
	expect(t, c.out, "ready")
	space := pidNamespace(t, c.Pid())
	if n := len(inNamespace(space)); n != 5 { // init, the program, its children
		t.Errorf("%d processes", n)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil { // the program dies of it, its children do not get it
		t.Fatal(err)
	}
	if code := c.end(t); code != 128+15 {
		t.Errorf("exit code %d", code)
	}
	if left := inNamespace(space); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if err := c.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
		t.Errorf("signal afterwards: %v", err)
	}
}

// TestSignals sends every kind of signal that can be forwarded.
func TestSignals(t *testing.T) {
	c := start(t, config(t, "signals"))
	expect(t, c.out, "ready")
	for _, s := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGPWR, 40, 64,
	} {
		if err := c.Signal(s); err != nil {
			t.Fatal(err)
		}
		expect(t, c.out, strconv.Itoa(int(s)))
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, c.out, "end")
	if code := c.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// supervisor starts a container from a directory with a probe; the arguments after that are the probe's. It writes
// the pid of init and what the container writes.
var supervisor = testfs.NewFunc("supervisor", func(args []string, _ *bufio.Reader, _ io.Writer) error {
	root, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	cfg := launching(root, append([]string{"/probe"}, args[1:]...)...)
	cfg.Stdout, cfg.Stderr = os.Stdout, os.Stderr
	c, err := ns.Start(cfg)
	if err != nil {
		return err
	}
	stop := c.Forward()
	defer stop()
	fmt.Println("pid", c.Pid())
	_, err = c.Wait()
	return err
})

// startSupervisor starts one in a process of its own and returns it with the pid of init. The program has said that
// it is ready.
func startSupervisor(t *testing.T, args ...string) (*testfs.Process, int) {
	t.Helper()
	p := supervisor.Start(t, append([]string{newDir(t)}, args...)...)
	timer := time.AfterFunc(patience, p.Kill) // ends the reading, too
	t.Cleanup(func() { timer.Stop() })
	pid, ready := 0, false
	for pid == 0 || !ready { // they come in either order
		line, err := p.Out.ReadString('\n')
		if err != nil {
			t.Fatal(err, p.Wait(patience))
		}
		_, _ = fmt.Sscanf(line, "pid %d", &pid)
		ready = ready || line == "ready\n"
	}
	return p, pid
}

// TestForward sends signals to a supervisor that has no terminal.
func TestForward(t *testing.T) {
	p, _ := startSupervisor(t, "signals")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		if err := syscall.Kill(p.Pid, s); err != nil {
			t.Fatal(err)
		}
		expect(t, p.Out, strconv.Itoa(int(s)))
	}
	if err := syscall.Kill(p.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(patience); err != nil {
		t.Error(err)
	}
}

// TestSupervisorKilled kills a supervisor and expects the whole container to end within a second.
func TestSupervisorKilled(t *testing.T) {
	p, pid := startSupervisor(t, "spawn", "2")
	space := pidNamespace(t, pid)
	if len(inNamespace(space)) != 4 {
		t.Fatal("no container")
	}
	kill(t, p)
	eventually(t, time.Second, "the container is gone", func() bool {
		reapOrphans()
		return len(inNamespace(space)) == 0
	})
}

// TestSupervisorKilledWhileStarting kills supervisors at any time after they began, and looks for inits that stay.
func TestSupervisorKilledWhileStarting(t *testing.T) {
	own := pidNamespace(t, os.Getpid())
	dir := newDir(t)
	for range 20 {
		p := supervisor.Start(t, dir, "sleep")
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		kill(t, p)
	}
	eventually(t, time.Second, "every init is gone", func() bool {
		reapOrphans()
		return !slices.ContainsFunc(children(t), func(pid int) bool {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
			return err == nil && link != own
		})
	})
}

// reapOrphans reaps inits whose supervisor was killed: testfs.Main makes this process the parent of orphans.
func reapOrphans() {
	for {
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

// TestSocketCloses ends the supervisor, as far as init can see, where the kernel's signal does not come.
func TestSocketCloses(t *testing.T) {
	init, socket, err := ns.StartUnbound(config(t, "spawn", "2"))
	if err != nil {
		t.Fatal(err)
	}
	space := pidNamespace(t, init.Pid)
	timer := time.AfterFunc(patience, func() { _ = init.Kill() })
	socket.Close()
	state, err := init.Wait()
	if err != nil || !timer.Stop() || state.ExitCode() != ns.ExitFailed {
		t.Errorf("init ended with %v, %v", state, err)
	}
	if left := inNamespace(space); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// kill kills a supervisor, but not its process group, which the container is in.
func kill(t *testing.T, p *testfs.Process) {
	t.Helper()
	if err := syscall.Kill(p.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(patience); err == nil {
		t.Fatal("ended by itself")
	}
}

// TestCallerThreadEnds ends the thread that called Start, which must not end the container.
func TestCallerThreadEnds(t *testing.T) {
	cfg := config(t, "sleep")
	started := make(chan *ns.Container)
	go func() {
		runtime.LockOSThread() // not unlocked, so the thread ends with the goroutine
		c, err := ns.Start(cfg)
		if err != nil {
			t.Error(err)
		}
		started <- c
	}()
	c := <-started
	if c == nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		_, _ = c.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		t.Error("the container ended with the thread")
	case <-time.After(300 * time.Millisecond):
	}
	_ = c.Signal(os.Kill)
	<-ended
}

// TestLeaks starts and fails many times, and counts what there is before and after.
func TestLeaks(t *testing.T) {
	dir := newDir(t)
	once := func() {
		for _, program := range []string{"/probe", "/nosuch"} {
			root := cloneDir(t, dir)
			if c, err := ns.Start(launching(root, program, "exit", "0")); err == nil {
				if code, err := c.Wait(); code != 0 || err != nil {
					t.Fatal(code, err)
				}
			}
			unix.Close(root)
		}
	}
	count := func() [3]int {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return [3]int{len(fds), runtime.NumGoroutine(), len(children(t))}
	}
	once() // what is made once and stays
	before := count()
	for range 20 {
		once()
	}
	var now [3]int
	eventually(t, time.Second, "no more descriptors, goroutines and children than before", func() bool {
		now = count()
		return now[0] <= before[0] && now[1] <= before[1] && now[2] <= before[2]
	})
}

// children returns the child processes of this one.
func children(t testing.TB) []int {
	t.Helper()
	var list []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // state, ppid
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil && rest[1] == strconv.Itoa(os.Getpid()) {
			list = append(list, pid)
		}
	}
	return list
}

// BenchmarkStart measures from Start until the program runs, and until it has ended.
func BenchmarkStart(b *testing.B) {
	dir := newDir(b)
	var started time.Duration
	for b.Loop() {
		root := cloneDir(b, dir)
		begin := time.Now()
		c, err := ns.Start(launching(root, "/probe", "exit", "0"))
		if err != nil {
			b.Fatal(err)
		}
		started += time.Since(begin)
		if _, err := c.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(started.Microseconds())/float64(b.N), "µs/start")
}
