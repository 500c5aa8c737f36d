package ns_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/ns"
)

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"exit", "0"}, 0},
		{[]string{"exit", "3"}, 3},
		{[]string{"exit", "125"}, 125},
		{[]string{"exit", "255"}, 255},
		{[]string{"kill", "0", "9"}, 128 + 9},
		{[]string{"kill", "0", "15"}, 128 + 15},
		{[]string{"kill", "1", "15"}, 128 + 15}, // init forwards it
	} {
		if _, code := output(t, config(t, c.args...)); code != c.want {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.want)
		}
	}
}

// TestProgram checks how the program is found, and the codes for one that cannot be run.
func TestProgram(t *testing.T) {
	dir := newDir(t)
	for name, file := range map[string]struct {
		mode    os.FileMode
		content string
	}{
		"plain":    {0o644, "x"},
		"empty":    {0o755, ""},
		"lost":     {0o755, "#!/no/such/shell\n"},
		"bin/late": {0o755, "#!/probe args\n"},
		"a/late":   {0o644, "not executable, so not taken"},
		"a/plain":  {0o644, "x"},
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		program, dir string
		code         int // 0: runs
		err          error
	}{
		{"/probe", "", 0, nil},
		{"./probe", "/", 0, nil},
		{"../probe", "/bin", 0, nil},
		{"late", "", 0, nil},
		{"nosuch", "", 127, syscall.ENOENT},
		{"probe", "", 127, syscall.ENOENT}, // not in PATH
		{"/nosuch", "", 127, syscall.ENOENT},
		{"/lost", "", 127, syscall.ENOENT},
		{"/plain", "", 126, syscall.EACCES},
		{"plain", "", 126, syscall.EACCES},
		{"/bin", "", 126, syscall.EACCES},
		{"/empty", "", 126, syscall.ENOEXEC},
		{"/probe/x", "", 126, syscall.ENOTDIR},
		{"/probe", "/nosuch", 125, syscall.ENOENT},
		{"/probe", "/plain", 125, syscall.ENOTDIR},
	} {
		cfg := launching(cloneDir(t, dir), c.program, "args")
		cfg.Env, cfg.Dir = []string{"PATH=/a:/bin"}, c.dir
		if c.code == 0 {
			if _, code := output(t, cfg); code != 0 {
				t.Errorf("%s in %q: exit code %d", c.program, c.dir, code)
			}
			continue
		}
		e := startError(t, cfg)
		if !errors.Is(e, c.err) || e.ExitCode() != c.code || e.Fix == "" {
			t.Errorf("%s in %q: %v, code %d; want %v, code %d, and a fix", c.program, c.dir, e, e.ExitCode(), c.err, c.code)
		}
	}
}

func TestArgumentsAndEnvironment(t *testing.T) {
	cfg := config(t, "args", "", "a b", "\xff\xfe", "\u2028")
	if out, _ := output(t, cfg); out != fmt.Sprintf("%q\n", cfg.Argv[2:]) {
		t.Errorf("arguments %s", out)
	}
	t.Setenv("UNIONFSD_SECRET", "host")
	cfg = config(t, "env")
	cfg.Env = []string{"A=\xff", "B=", "GODEBUG=x=y", "HOME=/home"}
	if out, _ := output(t, cfg); out != fmt.Sprintf("%q\n", cfg.Env) {
		t.Errorf("environment %s", out)
	}
	cfg = config(t, "cat", "/proc/1/environ")
	cfg.AddCaps = []string{"SYS_PTRACE"} // what else would keep it from reading that
	if out, _ := output(t, cfg); out == "" || strings.Contains(out, "UNIONFSD_SECRET") {
		t.Errorf("environment of init %q", out)
	}
}

// TestInitName checks that ps(1) tells init from the supervisor.
func TestInitName(t *testing.T) {
	if out, _ := output(t, config(t, "cat", "/proc/1/comm")); out != "unionfsd-init\n" {
		t.Errorf("comm %q", out)
	}
	if out, _ := output(t, config(t, "cat", "/proc/1/cmdline")); out != "unionfsd-init\x00" {
		t.Errorf("command line %q", out)
	}
}

func TestDir(t *testing.T) {
	for dir, want := range map[string]string{"": "/", "/": "/", "/proc": "/proc", "/dev/../dev/shm": "/dev/shm"} {
		cfg := config(t, "pwd")
		cfg.Dir = dir
		if out, _ := output(t, cfg); out != want+"\n" {
			t.Errorf("%q: in %q, want %q", dir, out, want)
		}
	}
}

// TestDirOutside names a working directory through a descriptor of the host.
func TestDirOutside(t *testing.T) {
	cfg := config(t, "pwd")
	var err error
	if cfg.Stdin, err = os.Open("/"); err != nil {
		t.Fatal(err)
	}
	defer cfg.Stdin.Close()
	cfg.Dir = "/proc/self/fd/0"
	if e := startError(t, cfg); e.Step != "chdir /proc/self/fd/0" || e.Fix == "" || e.ExitCode() != 125 {
		t.Error(e)
	}
}

// TestConfigErrors checks that nothing is started for a configuration that cannot be right.
func TestConfigErrors(t *testing.T) {
	root := cloneDir(t, newDir(t))
	file, err := os.Open(probe)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ok := launching(root, "/probe")
	for name, change := range map[string]func(*ns.Config){
		"closed root":       func(c *ns.Config) { c.Root = 1 << 20 },
		"no root":           func(c *ns.Config) { c.Root = -1 },
		"root is a file":    func(c *ns.Config) { c.Root = int(file.Fd()) },
		"no program":        func(c *ns.Config) { c.Argv = nil },
		"empty program":     func(c *ns.Config) { c.Argv = []string{""} },
		"zero byte":         func(c *ns.Config) { c.Argv = []string{"a", "b\x00c"} },
		"relative dir":      func(c *ns.Config) { c.Dir = "a" },
		"relative mask":     func(c *ns.Config) { c.Mask = []string{"a"} },
		"masked root":       func(c *ns.Config) { c.Mask = []string{"/proc/.."} },
		"long host name":    func(c *ns.Config) { c.Hostname = strings.Repeat("a", 65) },
		"variable, no =":    func(c *ns.Config) { c.Env = []string{"A"} },
		"variable, no name": func(c *ns.Config) { c.Env = []string{"=A"} },
	} {
		cfg := ok
		change(&cfg)
		e := startError(t, cfg)
		if e.Step != "configure" || e.Fix == "" || e.ExitCode() != 125 || strings.Contains(e.Error(), "\n") {
			t.Errorf("%s: %v", name, e)
		}
	}
	// The mount was not used up.
	if _, code := output(t, launching(root, "/probe", "exit", "0")); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestFailedSteps makes steps of the plan fail, and looks for what is left.
func TestFailedSteps(t *testing.T) {
	symlink := func(name string) func(string) error {
		return func(dir string) error { return os.Symlink("/outside", filepath.Join(dir, name)) }
	}
	file := func(dir string) error { return os.WriteFile(filepath.Join(dir, "sys"), nil, 0o755) }
	for _, c := range []struct {
		name    string
		prepare func(dir string) error
		change  func(cfg *ns.Config)
		step    string
		path    string
		err     error
	}{
		{"symlink at /proc", symlink("proc"), nil, "mount proc on /proc", "/proc", syscall.ELOOP},
		{"symlink at /sys", symlink("sys"), nil, "mount sysfs on /sys", "/sys", syscall.ELOOP},
		{"symlink at /dev", symlink("dev"), nil, "mount tmpfs on /dev", "/dev", syscall.ELOOP},
		{"file at /sys", file, nil, "mount sysfs on /sys", "/sys", syscall.ENOTDIR},
		{"missing", nil, func(cfg *ns.Config) { cfg.RequireMountPoints = true }, "mount proc on /proc", "/proc", syscall.ENOENT},
		{"read-only", nil, func(cfg *ns.Config) {
			attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
			if err := unix.MountSetattr(cfg.Root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
				t.Fatal(err)
			}
		}, "mkdir /dev", "/dev", syscall.EROFS},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newDir(t)
			outside := filepath.Join(filepath.Dir(dir), "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if c.prepare != nil {
				if err := c.prepare(dir); err != nil {
					t.Fatal(err)
				}
			}
			cfg := launching(cloneDir(t, dir), "/probe", "exit", "0")
			if c.change != nil {
				c.change(&cfg)
			}
			mounts := mountinfo(t)
			e := startError(t, cfg)
			if e.Step != c.step || e.Path != c.path || !errors.Is(e, c.err) || e.Fix == "" || e.ExitCode() != 125 {
				t.Errorf("step %q, path %q: %v; want step %q, path %q, %v, and a fix", e.Step, e.Path, e, c.step, c.path, c.err)
			}
			if strings.Contains(e.Error(), "\n") {
				t.Errorf("more than one line: %v", e)
			}
			if now := mountinfo(t); now != mounts {
				t.Errorf("mounts before\n%s\nand after\n%s", mounts, now)
			}
			if n := len(children(t)); n != 0 {
				t.Errorf("%d processes are left", n)
			}
		})
	}
}

// TestRootErrors checks roots that are not detached mounts, or were used before.
func TestRootErrors(t *testing.T) {
	dir := newDir(t)
	plain, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plain)
	argv := []string{"/probe", "exit", "0"}
	used := cloneDir(t, dir)
	output(t, launching(used, argv...))
	for name, root := range map[string]int{"directory": plain, "used": used} {
		e := startError(t, launching(root, argv...))
		if e.Step != "attach the root" || !errors.Is(e, syscall.EINVAL) || e.Fix == "" {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// unprivileged tries to start a container in a clone of the directory args[0] without being root.
var unprivileged = testfs.NewFunc("unprivileged", func(args []string, _ *bufio.Reader, out io.Writer) error {
	root, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	_, err = ns.Start(launching(root, "/probe", "exit", "0"))
	fmt.Fprintf(out, "%v, %v\n", err, errors.Is(err, syscall.EPERM))
	return nil
})

func TestNoPrivilege(t *testing.T) {
	out, err := unprivileged.Run(t, patience, newDir(t))
	want := "clone namespaces: operation not permitted; run as root, with CAP_SYS_ADMIN, true\n"
	if err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// startError starts cfg, which must fail with an *ns.Error.
func startError(t *testing.T, cfg ns.Config) *ns.Error {
	t.Helper()
	c, err := ns.Start(cfg)
	if err == nil {
		_ = c.Signal(os.Kill)
		_, _ = c.Wait()
		t.Fatalf("%q started", cfg.Argv)
	}
	var e *ns.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an ns.Error: %v", err)
	}
	return e
}

// TestServedBySelf has a root that nobody answers for, as one that this process serves and is killed meanwhile: to wait for
// it would be for ever.
func TestServedBySelf(t *testing.T) {
	testfs.NeedRoot(t)
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	defer device.Close()
	root, err := sys.NewMount("fuse", []string{fmt.Sprintf("fd=%d", device.Fd()), "rootmode=40000", "user_id=0", "group_id=0"}, 0)
	if err != nil {
		testfs.Skip(t, "mount a FUSE file system: %v", err)
	}
	defer unix.Close(root)
	checked := make(chan error, 1)
	go func() {
		cfg := launching(root, "/probe")
		checked <- cfg.Check()
	}()
	select {
	case err := <-checked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it asks the file system")
		device.Close() // which ends it
		<-checked
	}
}
