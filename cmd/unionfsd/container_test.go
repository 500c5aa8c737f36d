package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// patience is how long anything that a test waits for may take.
const patience = 30 * time.Second

// session is a series of commands with a state root of their own.
type session struct {
	t    testing.TB
	dir  string // working directory
	root state.Root
}

// newSession makes one in a directory where both backends can have an upper layer, with a root file system called "root"
// that holds a shell.
func newSession(t testing.TB) *session {
	t.Helper()
	testfs.NeedRoot(t)
	dir := testfs.TempDir(t)
	if isOverlay(t, dir) {
		dir = testfs.Tmpfs(t)
	}
	root, err := state.At(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t, dir, root}
	for _, name := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(s.path("root/"+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	if out, err := exec.Command("cp", busybox, s.path("root/bin/busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if err := os.Symlink("busybox", s.path("root/bin/sh")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *session) path(name string) string { return filepath.Join(s.dir, name) }

// command is a call of unionfsd that was not started yet.
func (s *session) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", s.root.Dir()}, args...)...)
	cmd.Args[0] = "unionfsd" // under which the test binary is it
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

// run returns what a command writes to its standard output and error, and its exit code.
func (s *session) run(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !timer.Stop() {
		s.t.Fatalf("unionfsd %s: killed after %v", strings.Join(args, " "), patience)
	}
	return out.String(), errors.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that succeeds, and returns its output.
func (s *session) must(args ...string) string {
	s.t.Helper()
	stdout, stderr, code := s.run(args...)
	if code != 0 {
		s.t.Fatalf("unionfsd %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// container returns what is known of a container.
func (s *session) container(name string) state.Container {
	s.t.Helper()
	c, err := s.root.Container(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// until waits until what holds.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// forBackends runs a test on each backend.
func forBackends(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{"fuse", "kernel"} {
		t.Run(backend, func(t *testing.T) { test(t, backend) })
	}
}

// TestSupervisorHoldsNoMount: a supervisor that is killed must not be the last one to have a mount that it serves.
func TestSupervisorHoldsNoMount(t *testing.T) {
	forBackends(t, func(t *testing.T, backend string) {
		s := newSession(t)
		if err := os.Mkdir(s.path("src"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.must("run", "-d", "--name", "web", "-b", backend, "--rootfs", "root", "-v", "src:/src", "sh", "-c", "sleep 100")
		c := s.container("web")
		inside := map[string]string{}
		table, err := mountinfo.ReadOf(strconv.Itoa(c.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range table {
			inside[e.ID] = e.MountPoint
		}
		if len(inside) < 5 {
			t.Fatalf("mount table %v", table)
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", c.Supervisor))
		if err != nil || len(files) == 0 {
			t.Fatalf("descriptors %v, %v", files, err)
		}
		for _, f := range files {
			text, _ := os.ReadFile(f)
			for line := range strings.Lines(string(text)) {
				if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
					if point := inside[strings.TrimSpace(id)]; point != "" {
						t.Errorf("descriptor %s is on what is mounted on %s", filepath.Base(f), point)
					}
				}
			}
		}
		s.must("rm", "-f", "web")
	})
}

// TestSignalsInside: what the caller of run -d ignores, its programs do not.
func TestSignalsInside(t *testing.T) {
	s := newSession(t)
	// What a shell puts into the background ignores SIGINT and SIGQUIT, and under nohup SIGHUP.
	script := `nohup bash -c 'exec -a unionfsd "$0" --root state run -d --name web --rootfs root busybox grep SigIgn /proc/self/status' "$0" & wait $!`
	cmd := exec.Command("sh", "-c", script, "/proc/"+strconv.Itoa(os.Getpid())+"/exe")
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.must("wait", "web")
	var ignored uint64
	const ofLibraries = 3 << 31 // signals 32 and 33, which C libraries and the race detector use
	out := s.must("logs", "web")
	if _, err := fmt.Sscanf(out, "SigIgn:\t%x", &ignored); err != nil || ignored&^ofLibraries != 0 {
		t.Errorf("in the container: %s (%v)", out, err)
	}
	s.must("rm", "web")
}

// TestRemoveWhileStarting removes containers at any time after they were asked for.
func TestRemoveWhileStarting(t *testing.T) {
	s := newSession(t)
	for i := range 12 {
		cmd := s.command("run", "-d", "--name", "web", "--rootfs", "root", "--io-uring", "off", "sh", "-c", "sleep 100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "there is a container", func() bool {
			_, err := s.root.Container("web")
			return err == nil
		})
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		began := time.Now()
		s.must("rm", "-f", "web")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		_ = cmd.Wait()
		if left, err := s.root.Containers(); err != nil || len(left) > 0 {
			t.Fatalf("left are %v, %v", left, err)
		}
	}
}
