package ns_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/ns"
)

func TestMain(m *testing.M) {
	ns.Init()
	if os.Getenv(onTerminalEnv) != "" {
		os.Exit(runOnTerminal())
	}
	testfs.Main(withProbe{m})
}

// patience is how long anything here may take.
const patience = 30 * time.Second

// probe is the path of the built testdata/probe.
var probe string

// withProbe builds the probe before the tests run.
type withProbe struct{ *testing.M }

func (w withProbe) Run() int {
	dir, err := os.MkdirTemp("", "probe-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	probe = filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the probe: %v\n%s", err, out)
		return 1
	}
	return w.M.Run()
}

// newDir returns a directory with the probe in it, to be a root.
func newDir(t testing.TB) string {
	t.Helper()
	testfs.NeedRoot(t)
	dir := t.TempDir()
	if err := os.Link(probe, filepath.Join(dir, "probe")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cloneDir returns a detached mount of dir.
func cloneDir(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		testfs.Skip(t, "open_tree: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// config returns what launches the probe with args in a new root.
func config(t testing.TB, args ...string) ns.Config {
	t.Helper()
	cfg := launching(cloneDir(t, newDir(t)), append([]string{"/probe"}, args...)...)
	cfg.Env = ns.DefaultEnv("", "")
	return cfg
}

// launching returns what launches argv in root.
func launching(root int, argv ...string) ns.Config {
	return ns.Config{Root: root, Process: ns.Process{Argv: argv}}
}

// output runs cfg to its end and returns what it wrote and its exit code.
func output(t testing.TB, cfg ns.Config) (string, int) {
	t.Helper()
	c := start(t, cfg)
	out, err := io.ReadAll(c.out)
	if err != nil {
		t.Fatal(err)
	}
	code := c.end(t)
	if code == 99 { // the probe itself failed
		t.Fatalf("%q: %s", cfg.Argv, out)
	}
	return string(out), code
}

// container is a running one and what it writes.
type container struct {
	*ns.Container
	out *bufio.Reader // standard output and error
}

// start starts cfg with its output going to a pipe.
func start(t testing.TB, cfg ns.Config) *container {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	cfg.Stdout, cfg.Stderr = w, w
	c, err := ns.Start(cfg)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for tests that fail in between
		_ = c.Signal(os.Kill)
		_, _ = c.Wait()
	})
	return &container{c, bufio.NewReader(r)}
}

// end waits for the end of the container, and kills it if that takes too long.
func (c *container) end(t testing.TB) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { _ = c.Signal(os.Kill) })
	code, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !timer.Stop() {
		t.Fatalf("killed after %v", patience)
	}
	return code
}

// expect reads a line and fails the test if it is another one.
func expect(t testing.TB, r *bufio.Reader, want string) {
	t.Helper()
	if line, err := r.ReadString('\n'); strings.TrimRight(line, "\r\n") != want {
		t.Fatalf("got %q, %v; want %q", line, err, want)
	}
}

// eventually waits until what holds.
func eventually(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// mountinfo returns the mount table of this process.
func mountinfo(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// inNamespace returns the processes whose pid namespace is the one named link, as "pid:[4026531836]".
func inNamespace(link string) []string {
	var pids []string
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, path := range links {
		if l, err := os.Readlink(path); err == nil && l == link {
			pids = append(pids, strings.Split(path, "/")[2])
		}
	}
	return pids
}

// pidNamespace returns the pid namespace of a process.
func pidNamespace(t testing.TB, pid int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	return link
}
