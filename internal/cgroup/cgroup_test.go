package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// fake is a hierarchy of ordinary files.
func fake(t *testing.T, controllers, own string, groups ...string) Hierarchy {
	root := t.TempDir()
	h := Hierarchy{root: root, own: own}
	h.mkdir = func(dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": "",
			"memory.max": "max", "memory.events": "low 0\noom 1\noom_kill 3\n", "cpu.max": "max 100000", "pids.max": "max"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	os.Remove(root)
	for _, g := range append([]string{"/"}, groups...) {
		if err := h.mkdir(filepath.Join(root, g)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h Hierarchy) has(t *testing.T, file, want string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.root, file))
	if err != nil || strings.TrimSpace(string(text)) != want {
		t.Errorf("%s has %q, %v; want %q", file, text, err, want)
	}
}

func TestMain(m *testing.M) { testfs.Main(m) }

func TestLimits(t *testing.T) {
	h := fake(t, "cpu memory pids", "/")
	h.top = true
	limits := Limits{Memory: 64 << 20, CPUs: 1.5, PIDs: 20}
	path, err := h.Path("web", limits)
	if err != nil {
		t.Fatal(err)
	}
	if path != h.root+"/unionfsd/web" {
		t.Errorf("path %s", path)
	}
	g, err := h.Make(path, limits) // memory.swap.max is not there: no swap in the kernel
	if err != nil {
		t.Fatal(err)
	}
	h.has(t, "unionfsd/web/memory.max", "67108864")
	h.has(t, "unionfsd/web/cpu.max", "150000 100000")
	h.has(t, "unionfsd/web/pids.max", "20")
	if n, err := g.OOMKills(); n != 3 || err != nil {
		t.Errorf("killed %d, %v; want 3", n, err)
	}
	// A limit that cannot be set is an error.
	h.mkdir = func(dir string) error { return os.Mkdir(dir, 0o755) }
	if _, err := h.Make(filepath.Join(h.root, "unionfsd/db"), Limits{PIDs: 1}); err == nil || !strings.Contains(err.Error(), "pids.max") {
		t.Errorf("without pids.max: %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.root, "unionfsd/db")); !os.IsNotExist(err) {
		t.Errorf("it left its group: %v", err)
	}
}

// TestParent finds a group that may be divided, and says why there is none.
func TestParent(t *testing.T) {
	testfs.NeedRoot(t)
	h := fake(t, "memory pids", "/user/app/shell", "user", "user/app", "user/app/shell")
	// A group that has processes refuses to be written to; here by what root cannot write to either.
	busy := func(group string) {
		t.Helper()
		file := filepath.Join(h.root, group, "cgroup.subtree_control")
		if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	free := filepath.Join(h.root, "user")
	for _, group := range []string{"user/app/shell", "user/app"} {
		file := filepath.Join(h.root, group, "cgroup.subtree_control")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := h.Path("web", Limits{Memory: 1}); err != nil || path != free+"/web" {
		t.Errorf("%s, %v; want one in %s", path, err, free)
	}
	h.has(t, "user/cgroup.subtree_control", "+memory")
	busy("user")
	busy("")
	if _, err := h.Path("web", Limits{Memory: 1}); err == nil || !strings.Contains(err.Error(), "user/app/shell") || !strings.Contains(err.Error(), "systemd-run") {
		t.Errorf("no group: %v", err)
	}
	if _, err := h.Path("web", Limits{CPUs: 1}); err == nil || !strings.Contains(err.Error(), `"cpu"`) {
		t.Errorf("no controller: %v", err)
	}
}

// TestGroup starts a process in a group of the kernel's.
func TestGroup(t *testing.T) {
	testfs.NeedRoot(t)
	h, err := Open()
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	path, err := h.Path("unionfsd-test", Limits{})
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	g, err := h.Make(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.has(t, strings.TrimPrefix(path, h.root)+"/cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
	if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removed with a process in it: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := At(path).Remove(); err != nil {
		t.Errorf("removed again: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left is %s", path)
	}
}
