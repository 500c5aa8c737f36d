package ns_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/cgroup"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/ns"
)

// TestMountTable checks that the container sees its own mounts and no other.
func TestMountTable(t *testing.T) {
	out, _ := output(t, config(t, "cat", "/proc/self/mountinfo"))
	var got []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		got = append(got, f[4]+" "+f[sep+1]+" "+strings.Join(f[6:sep], " "))
	}
	slices.Sort(got[1:])
	// The second field of the first line is the file system of the test's directory, whichever that is.
	if !strings.HasPrefix(got[0], "/ ") || strings.Contains(out, "shared:") || strings.Contains(out, "master:") {
		t.Errorf("mount table:\n%s", out)
	}
	want := []string{"/dev tmpfs ", "/dev/mqueue mqueue ", "/dev/pts devpts ", "/dev/shm tmpfs ", "/proc proc ", "/sys sysfs "}
	below := slices.DeleteFunc(slices.Clone(got[1:]), func(m string) bool { // what is masked or read-only
		return strings.HasPrefix(m, "/proc/") || strings.HasPrefix(m, "/sys/")
	})
	if !slices.Equal(below, want) {
		t.Errorf("mounts %q, want %q", below, want)
	}
	host, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, host) {
		t.Errorf("the host's namespace in:\n%s", out)
	}
}

// TestHostMountTable checks that a running container is not seen in the mount table of the supervisor, even where
// mounts propagate, as systemd sets them up.
func TestHostMountTable(t *testing.T) {
	dir := newDir(t)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
		}
	})
	before := mountinfo(t)
	if !strings.Contains(before, "shared:") {
		t.Fatalf("no shared mount in\n%s", before)
	}
	cfg := launching(cloneDir(t, dir), "/probe", "sleep")
	c := start(t, cfg)
	during := mountinfo(t)
	_ = c.Signal(os.Kill)
	c.end(t)
	if during != before {
		t.Errorf("mount table before\n%s\nwith the container\n%s", before, during)
	}
	if after := mountinfo(t); after != before {
		t.Errorf("mount table before\n%s\nafter the container\n%s", before, after)
	}
}

// TestDescriptors checks that no descriptor of the host gets in, not even one that the supervisor lets its children
// inherit.
func TestDescriptors(t *testing.T) {
	leak, err := syscall.Open("/", syscall.O_RDONLY, 0) // no O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)

	out, _ := output(t, config(t, "fds"))
	var numbers []string
	for line := range strings.Lines(out) {
		number, target, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(target, "anon_inode:[event") { // the probe's own runtime
			numbers = append(numbers, number)
		}
	}
	if slices.Sort(numbers); !slices.Equal(numbers, []string{"0", "1", "2"}) {
		t.Errorf("descriptors of the program:\n%s", out)
	}
	// From outside and after Start, when init does no more than wait.
	c := start(t, config(t, "sleep"))
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.Pid()))
	if err != nil || len(links) < 4 {
		t.Fatal(links, err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			t.Fatal(err)
		}
		own := strings.HasPrefix(target, "anon_inode:[event") || strings.HasPrefix(target, "socket:")
		if filepath.Base(link) > "2" && !own {
			t.Errorf("descriptor of init: %s %s", link, target)
		}
	}
}

// TestNull checks that the program's /dev/null is the container's, whether the supervisor gave none or its own.
func TestNull(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, stdin := range []*os.File{nil, null} {
		cfg := config(t, "stdin")
		cfg.Stdin = stdin
		if out, _ := output(t, cfg); out != "/dev/null on /dev\n" {
			t.Errorf("standard input is %q", out)
		}
	}
}

func TestDev(t *testing.T) {
	want := `/dev/null char 0666 1:3
/dev/zero char 0666 1:5
/dev/full char 0666 1:7
/dev/random char 0666 1:8
/dev/urandom char 0666 1:9
/dev/tty char 0666 5:0
/dev/ptmx link pts/ptmx
/dev/pts/ptmx char 0666 5:2
/dev/fd link /proc/self/fd
/dev/stdin link /proc/self/fd/0
/dev/stdout link /proc/self/fd/1
/dev/stderr link /proc/self/fd/2
/dev/shm dir 1777
/dev/mqueue dir 1777
/dev dir 0755
`
	args := []string{"stat"}
	for line := range strings.Lines(want) {
		args = append(args, strings.Fields(line)[0])
	}
	old := syscall.Umask(0o077) // of no effect inside
	out, _ := output(t, config(t, args...))
	syscall.Umask(old)
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if out, _ := output(t, config(t, "pty")); !strings.HasPrefix(out, "/dev/pts/0 char 0620 136:0") {
		t.Errorf("terminal %q", out)
	}
}

// TestWrite checks where one can write and where not.
func TestWrite(t *testing.T) {
	files := []string{"/x", "/dev/shm/x", "/sys/kernel/mm/ksm/run", "/proc/self/comm"}
	for _, readOnly := range []bool{false, true} {
		cfg := config(t, append([]string{"write"}, files...)...)
		cfg.ReadOnly = readOnly
		out, _ := output(t, cfg)
		want := fmt.Sprintf("/x %v", !readOnly)
		for _, w := range []string{want, "/dev/shm/x true", "/sys/kernel/mm/ksm/run false", "/proc/self/comm true"} {
			if !strings.Contains(out, w) {
				t.Errorf("read-only %v: no %q in\n%s", readOnly, w, out)
			}
		}
	}
}

func TestHostname(t *testing.T) {
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "hostname")
	if out, _ := output(t, cfg); out != before+"\n" {
		t.Errorf("host name %q, want the host's, %q", out, before)
	}
	cfg = config(t, "hostname")
	cfg.Hostname = "box-" + strings.Repeat("a", 60)
	if out, _ := output(t, cfg); out != cfg.Hostname+"\n" {
		t.Errorf("host name %q", out)
	}
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the host's name became %q", after)
	}
}

// TestNamespaces checks which namespaces are the container's own.
func TestNamespaces(t *testing.T) {
	c := start(t, config(t, "sleep"))
	for name, own := range map[string]bool{"mnt": true, "pid": true, "uts": true, "ipc": true, "net": false, "user": false} {
		host, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), name))
		if err != nil {
			t.Fatal(err)
		}
		if (host != inside) != own {
			t.Errorf("%s namespace: %s on the host, %s inside", name, host, inside)
		}
	}
	_ = c.Signal(os.Kill)
	if code := c.end(t); code != 128+9 {
		t.Errorf("exit code %d", code)
	}
}

// TestMountPoints checks that missing mount points are made, and that present ones are left alone.
func TestMountPoints(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(filepath.Join(dir, "proc"), 0o500); err != nil {
		t.Fatal(err)
	}
	cfg := launching(cloneDir(t, dir), "/probe", "exit", "0")
	output(t, cfg)
	for _, name := range ns.MountPoints() {
		st, err := os.Stat(filepath.Join(dir, name))
		want := os.ModeDir | 0o755
		if name == "proc" {
			want = os.ModeDir | 0o500
		}
		if err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
		if entries, _ := os.ReadDir(filepath.Join(dir, name)); len(entries) > 0 {
			t.Errorf("%s: something was made below the mount: %v", name, entries)
		}
	}
	cfg.Root, cfg.RequireMountPoints = cloneDir(t, dir), true
	if _, code := output(t, cfg); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMask checks that a masked directory is empty and cannot be written.
func TestMask(t *testing.T) {
	dir := newDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "a b", "secret"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := launching(cloneDir(t, dir), "/probe", "write", "/a b/x", "/a b/secret/x")
	cfg.Mask = []string{"//a b/"}
	out, _ := output(t, cfg)
	want := "/a b/x false open /a b/x: read-only file system\n/a b/secret/x false open /a b/secret/x: no such file or directory\n"
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// TestFsmount launches in a file system that was never anywhere else.
func TestFsmount(t *testing.T) {
	testfs.NeedRoot(t)
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	program, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/probe", root), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := launching(root, "/probe", "write", "/new")
	if out, _ := output(t, cfg); !strings.HasPrefix(out, "/new true") {
		t.Errorf("got %q", out)
	}
	// The descriptor still leads there when the container is gone.
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/new", root)); err != nil {
		t.Error(err)
	}
}

// TestCgroup starts a container in a control group, which is the root of those that it sees.
func TestCgroup(t *testing.T) {
	testfs.NeedRoot(t)
	h, err := cgroup.Open()
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	path, err := h.Path("unionfsd-test-ns", cgroup.Limits{})
	if err != nil {
		testfs.Skip(t, "%v", err)
	}
	g, err := h.Make(path, cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}()
	cfg := config(t, "sleep")
	if cfg.Cgroup, err = g.Open(); err != nil {
		t.Fatal(err)
	}
	defer cfg.Cgroup.Close()
	c := start(t, cfg)
	inside, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil || !strings.Contains("\n"+string(inside), fmt.Sprintf("\n%d\n", c.Pid())) {
		t.Errorf("in the group are %q, %v; want %d", inside, err, c.Pid())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := c.Exec(ns.Process{Argv: []string{"/probe", "cat", "/proc/self/cgroup"}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	e.Wait()
	if !strings.Contains("\n"+string(out), "\n0::/\n") {
		t.Errorf("it sees itself in %q", out)
	}
	if err := c.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	c.end(t)
}
