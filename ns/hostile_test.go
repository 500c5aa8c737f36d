package ns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// Roots and programs that try to get at the host. The table in docs/containers.md names these tests.

// TestFakeDevices has a root whose /dev leads masked files and descriptors elsewhere (CVE-2025-31133, CVE-2025-52565).
func TestFakeDevices(t *testing.T) {
	dir := newDir(t)
	secret := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{secret: "host", dir + "/dev/null": "fake", dir + "/dev/zero": "fake"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"pts", "console", "ptmx", "fd", "shm", "mqueue"} {
		if err := os.Symlink(filepath.Dir(secret), filepath.Join(dir, "dev", name)); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := output(t, launching(cloneDir(t, dir), "/probe", "stat", "/proc/keys", "/dev/null", "/dev/pts", "/dev/shm"))
	if !strings.HasPrefix(out, "/proc/keys char 0666 1:3\n/dev/null char 0666 1:3\n/dev/pts dir") {
		t.Errorf("it sees\n%s", out)
	}
	if out, _ := output(t, launching(cloneDir(t, dir), "/probe", "write", "/dev/null", "/dev/shm/secret")); strings.Contains(out, "false") {
		t.Errorf("it wrote\n%s", out)
	}
	for name, want := range map[string]string{secret: "host", dir + "/dev/null": "fake", dir + "/dev/zero": "fake"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

// TestFakeUsers has a root whose /etc/passwd is what nobody should read to its end, or leads to the host's.
func TestFakeUsers(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("victim:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(passwd string) error{
		"a FIFO":      func(p string) error { return unix.Mkfifo(p, 0o644) },
		"a device":    func(p string) error { return os.Symlink("/dev/zero", p) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"large":       func(p string) error { return os.WriteFile(p, make([]byte, 5<<20), 0o644) },
		"the host's":  func(p string) error { return os.Symlink(outside, p) },
		"above":       func(p string) error { return os.Symlink("../../../../../../.."+outside, p) },
	} {
		dir := newDir(t)
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(filepath.Join(dir, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		cfg := launching(cloneDir(t, dir), "/probe", "exit", "0")
		cfg.User = "victim"
		if e := startError(t, cfg); !strings.HasPrefix(e.Step, "user ") {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TestMountInside mounts in a container that may, where mounts propagate on the host, and on the host.
func TestMountInside(t *testing.T) {
	dir := newDir(t)
	for _, sub := range []string{"mnt", "later"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
		}
	})
	before := mountinfo(t)
	cfg := launching(cloneDir(t, dir), "/probe", "mount", "/mnt")
	cfg.Privileged = true
	c := start(t, cfg)
	expect(t, c.out, "ready")
	if now := mountinfo(t); now != before {
		t.Errorf("mount table before\n%s\nwith the container's mount\n%s", before, now)
	}
	host := filepath.Join(dir, "later")
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	inside, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Pid()))
	if err != nil || !strings.Contains(string(inside), " /mnt ") || strings.Contains(string(inside), "/later") {
		t.Errorf("its mount table, %v:\n%s", err, inside)
	}
	if err := unix.Unmount(host, 0); err != nil {
		t.Error(err)
	}
	_ = c.Signal(os.Kill)
	c.end(t)
}

// TestTypeIntoTerminal puts characters into the terminal of whoever started the container, as if they were typed
// (CVE-2017-5226).
func TestTypeIntoTerminal(t *testing.T) {
	tty := onTerminal(t, "typed")
	for range 2 { // that of the supervisor comes before or after
		line, err := tty.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "TIOCSTI") && !strings.HasPrefix(line, "TIOCSTI EPERM") {
			t.Error(line)
		}
	}
	expect(t, tty.out, "ended 0 <nil> in the foreground true <nil>")
}

// TestSetuid runs a set-uid program of root's in a container: it gives nothing by default, and never what root of the
// host has where that is nobody in the container.
func TestSetuid(t *testing.T) {
	dir := newDir(t)
	text, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	su := filepath.Join(dir, "su")
	if err := os.WriteFile(su, text, 0o755); err != nil {
		t.Fatal(err)
	}
	users := ownIDs(t, dir)
	for _, c := range []struct {
		owner  int
		change func(cfg *ns.Config)
		uid    string // real, effective, saved, of the file system
	}{
		{0, func(*ns.Config) {}, "1000\t1000\t1000\t1000"},
		{0, func(cfg *ns.Config) { cfg.NewPrivileges = true }, "1000\t0\t0\t0"},
		{0x70000000, func(cfg *ns.Config) { cfg.NewPrivileges, cfg.Users = true, users }, "1000\t0\t0\t0"}, // root of the container
		{0, func(cfg *ns.Config) { cfg.NewPrivileges, cfg.Users = true, users }, "1000\t1000\t1000\t1000"}, // of the host
	} {
		if err := os.Lchown(su, c.owner, c.owner); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(su, 0o4755); err != nil {
			t.Fatal(err)
		}
		cfg := launching(cloneDir(t, dir), "/su", "cat", "/proc/self/status")
		cfg.User = "1000:1000"
		c.change(&cfg)
		if out, _ := output(t, cfg); !strings.Contains(out, "Uid:\t"+c.uid+"\n") {
			t.Errorf("of %d, new privileges %v, own ids %v: not %q in\n%s", c.owner, cfg.NewPrivileges, cfg.Users != nil, c.uid, out)
		}
	}
}

// TestKernelFiles writes to what makes the kernel run a program of the container's as root of the host.
func TestKernelFiles(t *testing.T) {
	files := []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/fs/binfmt_misc/register",
		"/proc/sys/kernel/hotplug", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/proc/sysrq-trigger",
		"/sys/kernel/mm/transparent_hugepage/enabled", "/proc/kcore", "/proc/1/mem", "/proc/1/root/proc/sys/kernel/core_pattern"}
	dir := newDir(t)
	for _, own := range []bool{false, true} {
		cfg := launching(cloneDir(t, dir), append([]string{"/probe", "write"}, files...)...)
		if own {
			cfg.Users, cfg.AddCaps = ownIDs(t, dir), []string{"SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}
		}
		out, _ := output(t, cfg)
		if strings.Count(out, "\n") != len(files) {
			t.Fatalf("it says\n%s", out)
		}
		for line := range strings.Lines(out) {
			// That of a masked one goes to /dev/null.
			if strings.Contains(line, " true ") && !strings.HasPrefix(line, "/proc/kcore ") {
				t.Errorf("own ids %v: %s", own, line)
			}
		}
	}
	if st, err := os.Stat("/proc/kcore"); err == nil && st.Mode().IsRegular() {
		if out, _ := output(t, config(t, "stat", "/proc/kcore")); !strings.Contains(out, "char 0666 1:3") {
			t.Errorf("not masked: %s", out)
		}
	}
}

// TestSignalHost sends signals to processes of the host by their number there, and by none that the container can see.
func TestSignalHost(t *testing.T) {
	victim := os.Getpid()
	cfg := config(t, "kill", fmt.Sprint(victim), "9")
	cfg.Privileged = true
	c := start(t, cfg)
	out, _ := c.out.ReadString(0)
	if code := c.end(t); code != 99 || !strings.Contains(out, syscall.ESRCH.Error()) {
		t.Errorf("exit code %d, %s", code, out)
	}
}

// TestThroughInit goes by way of pid 1, a process of the host's: its root, its working directory, its descriptors, its memory.
func TestThroughInit(t *testing.T) {
	dir := newDir(t)
	ways := []string{"/proc/1/root/x", "/proc/1/cwd/x", "/proc/1/fd/3", "/proc/1/mem", "/proc/1/task/1/root/x"}
	for _, own := range []bool{false, true} {
		cfg := launching(cloneDir(t, dir), append([]string{"/probe", "write", "/x"}, ways...)...)
		if own {
			cfg.Users = ownIDs(t, dir)
		}
		out, _ := output(t, cfg)
		if !strings.HasPrefix(out, "/x true") || strings.Count(out, " false ") != len(ways) {
			t.Errorf("own ids %v:\n%s", own, out)
		}
	}
}
