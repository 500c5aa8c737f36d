package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// somebody is an ordinary user for tests, with a place of their own.
type somebody struct {
	t           *testing.T
	dir, binary string
}

const somebodyID = 65534 // nobody, who is in every /etc/passwd

// newSomebody makes a directory that the user may write, and lets everybody use /dev/fuse, as distributions do. What is
// mounted for that is gone with the mount namespace of the tests.
func newSomebody(t *testing.T) *somebody {
	testfs.NeedRoot(t)
	dir := t.TempDir()
	for d := dir; strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u := &somebody{t, filepath.Join(dir, "home"), filepath.Join(dir, "unionfsd")}
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(u.binary, self, 0o755)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(u.dir, "root/bin"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "/bin/busybox", filepath.Join(u.dir, "root/bin/sh")).CombinedOutput(); err != nil {
		testfs.Skip(t, "busybox: %s", out)
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprint(somebodyID, ":", somebodyID), u.dir).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	device := filepath.Join(dir, "fuse")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(device, 0o666); err != nil {
		t.Fatal(err)
	}
	u.bind(device, "/dev/fuse")
	return u
}

func (u *somebody) bind(source, target string) {
	u.t.Helper()
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		testfs.Skip(u.t, "bind on %s: %v", target, err)
	}
	u.t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			u.t.Error(err)
		}
	})
}

// run runs unionfsd as the user and returns what it writes, and its exit code.
func (u *somebody) run(args ...string) (string, int) {
	u.t.Helper()
	cmd := exec.Command(u.binary, append([]string{"--root", "state"}, args...)...)
	cmd.Args[0] = "unionfsd" // under which the test binary is it
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebodyID, Gid: somebodyID}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		u.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// expect runs unionfsd, and wants that output and exit code.
func (u *somebody) expect(code int, want string, args ...string) {
	u.t.Helper()
	if out, got := u.run(args...); got != code || !strings.Contains(out, want) {
		u.t.Errorf("unionfsd %s: exit code %d, want %d, and %q in:\n%s", strings.Join(args, " "), got, code, want, out)
	}
}

// TestRootless is the life of a container of an ordinary user, who has no other ids, or some that are lent.
func TestRootless(t *testing.T) {
	for _, backend := range []string{"fuse", "kernel"} {
		for _, ids := range []string{"own", "lent"} {
			t.Run(backend+"/"+ids, func(t *testing.T) { testRootless(t, backend, ids == "lent") })
		}
	}
}

func testRootless(t *testing.T, backend string, lent bool) {
	u := newSomebody(t)
	ranges := filepath.Join(filepath.Dir(u.dir), "ranges")
	text := ""
	if lent {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			testfs.Skip(t, "newuidmap: %v", err)
		}
		text = fmt.Sprintf("%d:100000:65536\n", somebodyID)
	}
	if err := os.WriteFile(ranges, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := os.Stat(file); err == nil || lent {
			u.bind(ranges, file)
		}
	}
	run := []string{"run", "-b", backend, "--rootfs", "root"}
	with := func(args ...string) []string { return append(append([]string{}, run...), args...) }

	u.expect(0, "0\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n", with("--rm", "sh", "-c",
		"id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status")...)
	u.expect(3, "", with("--rm", "sh", "-c", "exit 3")...)
	u.expect(127, "no such file", with("--rm", "/no/such")...)
	u.expect(0, "lo", with("--rm", "--network", "none", "sh", "-c", "ls /sys/class/net")...)
	if !lent {
		u.expect(125, "", with("--rm", "-u", "7", "sh")...)
	} else {
		u.expect(0, "7", with("--rm", "-u", "7", "sh", "-c", "id -u")...)
		u.expect(0, "", with("--rm", "sh", "-c", "touch /new && chown 5:6 /new")...)
	}

	keep := func(args ...string) []string {
		return with(append([]string{"--rm", "--userns", "keep-id"}, args...)...)
	}
	switch own := fmt.Sprint(somebodyID); {
	case lent && backend == "kernel":
		u.expect(125, "use --backend fuse", keep("sh")...)
	case lent:
		u.expect(0, "0 0\n"+own+"\n"+own+" "+own+"\n", keep("-v", ".:/here", "sh", "-ec",
			"stat -c '%u %g' /bin/sh; id -u; touch /here/new; stat -c '%u %g' /here/new; rm /here/new; ! touch /new 2>&1")...)
		u.expect(0, "0\n", keep("-u", "0", "sh", "-c", "id -u; touch /new")...)
	default:
		u.expect(0, own+" "+own+"\n"+own+"\nCapEff:\t0000000000000000\n", keep("sh", "-ec",
			"stat -c '%u %g' /bin/sh; id -u; grep CapEff /proc/self/status; touch /new")...)
		u.expect(125, "choose a user", keep("-u", "0", "sh")...)
	}
	u.expect(0, "0\n", with("--rm", "--userns", "auto", "sh", "-c", "id -u")...)

	u.expect(0, "web", with("-d", "--name", "web", "sh", "-c",
		`mkdir -p /new/below; chmod 0 /new; trap "exit 4" TERM; echo up; while :; do sleep 0.05; done`)...)
	for range 100 {
		if out, _ := u.run("logs", "web"); strings.Contains(out, "up") {
			break
		}
	}
	u.expect(0, "up", "logs", "web")
	u.expect(0, "running", "ps")
	u.expect(6, "web", "exec", "web", "sh", "-c", "hostname; exit 6")
	u.expect(0, "", "pause", "web")
	u.expect(0, "", "unpause", "web")
	u.expect(0, "", "stop", "web")
	u.expect(0, "4", "wait", "web")
	u.expect(0, "A /new", "diff", "web")
	u.expect(0, "", "rm", "web")
	u.expect(0, "web", with("-d", "--name", "web", "--tmp-upper", "sh", "-c", "sleep 100")...)
	u.expect(1, "only root can look into", "diff", "web")
	u.expect(0, "", "rm", "-f", "web")
	if left, err := os.ReadDir(filepath.Join(u.dir, "state/containers")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	// An image: of what the user has, run, changed, taken apart and gone.
	u.expect(0, "sha256:", "import", "-q", "-c", `CMD ["sh","-c","chmod 0 /bin; echo >/new"]`, "root", "base:1")
	u.expect(0, "", "run", "-b", backend, "--name", "web", "base:1")
	u.expect(0, "C /bin\nA /new", "diff", "web")
	u.expect(0, "sha256:", "commit", "-c", `CMD ["sh","-c","ls /new"]`, "web", "base:2")
	u.expect(0, "new", "tree", "web")
	u.expect(0, "", "rm", "web")
	u.expect(0, "/new", "run", "-b", backend, "--rm", "base:2")
	u.expect(0, "", "save", "-o", "out.tar", "base:2")
	u.expect(0, "", "export", "--to", "flat", "base:2")
	u.expect(0, "Untagged: base:2", "rmi", "base:2", "base:1")
	u.expect(0, "Loaded image: base:2", "load", "-q", "-i", "out.tar")
	u.expect(0, "/new", "run", "-b", backend, "--rm", "base:2")
	u.expect(0, "sha256:", "squash", "base:2", "base:3")
	u.expect(0, "", "rmi", "base:2", "base:3")
	u.expect(0, "0 layers", "gc")
	if left, err := os.ReadDir(filepath.Join(u.dir, "state/layers")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}

	if lent && backend == "kernel" {
		return // the same as with no ids lent
	}
	// On top of the host, put together of what is the user's to see.
	mine := filepath.Join(u.dir, "mine")
	err := os.WriteFile(mine, []byte("mine\n"), 0o644)
	if err == nil {
		err = os.Chown(mine, somebodyID, somebodyID)
	}
	if err != nil {
		t.Fatal(err)
	}
	forbidden := "/usr/lib/os-release"
	if lent { // over FUSE, files of others are those of 65534, who is lent: root may change its copy of them
		forbidden = "/proc/sys/kernel/hostname"
	}
	u.bind(u.dir, u.dir) // a file system of its own, which has nobody else's directories
	u.expect(0, fmt.Sprint(somebodyID, "\n", somebodyID, "\n"), "run", "--rm", "--userns", "keep-id", "-b", backend, "--rootfs", "/", "sh", "-ec",
		`cd "$1"; echo more >>mine; stat -c %u mine; id -u`, "-", u.dir)
	u.expect(0, "mine\n", "run", "--name", "host", "-b", backend, "--rootfs", "/", "sh", "-ec",
		`cd "$1"; cat mine; rm mine; mkdir new; test -e /bin/sh; test -e /proc/self/exe; test -z "$(ls state)"; ! echo >"$2"`, "-", u.dir, forbidden)
	u.expect(0, "D "+u.dir+"/mine\nA "+u.dir+"/new\n", "diff", "host")
	u.expect(0, "", "rm", "host")
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}
