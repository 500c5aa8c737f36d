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

// ownIDs is a user namespace with ids of its own, and the directory dir given to its root.
func ownIDs(t *testing.T, dir string) *ns.UserNamespace {
	t.Helper()
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0x70000000, Size: 65536}}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) != "probe" { // which is a link to the one of all tests
			err = os.Lchown(path, 0x70000000, 0x70000000)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return &ns.UserNamespace{UIDs: m, GIDs: m}
}

// TestUserNamespace launches a container with ids of its own: its root is nobody on the host.
func TestUserNamespace(t *testing.T) {
	dir := newDir(t)
	launch := func(args ...string) ns.Config {
		cfg := launching(cloneDir(t, dir), append([]string{"/probe"}, args...)...)
		cfg.Users = ownIDs(t, dir)
		return cfg
	}
	out, _ := output(t, launch("cat", "/proc/self/status"))
	for key, want := range map[string]string{"Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0", "Groups": " ", "CapEff": "00000000a80425fb"} {
		if !strings.Contains(out, key+":\t"+want+"\n") {
			t.Errorf("%s is not %q in\n%s", key, want, out)
		}
	}
	if out, _ := output(t, launch("write", "/new", "/dev/shm/x", "/proc/sys/kernel/hostname")); !strings.Contains(out, "/new true") ||
		!strings.Contains(out, "/dev/shm/x true") || !strings.Contains(out, "hostname false") {
		t.Errorf("it wrote\n%s", out)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "new"), &st); err != nil || st.Uid != 0x70000000 || st.Gid != 0x70000000 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	cfg := launch("cat", "/proc/self/status")
	cfg.User = "7:8"
	if out, _ := output(t, cfg); !strings.Contains(out, "Uid:\t7\t7\t7\t7\n") || !strings.Contains(out, "CapEff:\t0000000000000000\n") {
		t.Errorf("as another user:\n%s", out)
	}
	cfg = launch("cat", "/proc/net/dev") // namespaces of the host are not its own
	cfg.PrivateNetwork = true
	if out, _ := output(t, cfg); strings.Count(out, ":") != 1 {
		t.Errorf("interfaces\n%s", out)
	}
	for _, name := range []string{"user", "mnt", "pid", "uts", "ipc", "cgroup"} {
		c := start(t, launch("sleep"))
		host, _ := os.Readlink("/proc/self/ns/" + name)
		if inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), name)); err != nil || inside == host {
			t.Errorf("%s namespace: %s, %v", name, inside, err)
		}
		_ = c.Signal(os.Kill)
		c.end(t)
	}
}

// TestUserNamespaceOfOne has one user, who is not root, so pid 1 is not either.
func TestUserNamespaceOfOne(t *testing.T) {
	dir := newDir(t)
	cfg := launching(cloneDir(t, dir), "/probe", "cat", "/proc/self/status")
	ownIDs(t, dir)
	m := []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0x70000000, Size: 1}}
	cfg.Users = &ns.UserNamespace{UIDs: m, GIDs: m, UID: 1000, GID: 1000}
	cfg.User = "1000:1000"
	out, _ := output(t, cfg)
	for key, want := range map[string]string{"Uid": "1000\t1000\t1000\t1000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000"} {
		if !strings.Contains(out, key+":\t"+want+"\n") {
			t.Errorf("%s is not %q in\n%s", key, want, out)
		}
	}
	cfg.Root, cfg.User = cloneDir(t, dir), "" // root, who is not there
	if e := startError(t, cfg); e.ExitCode() != ns.ExitFailed || !strings.Contains(e.Fix, "choose a user") {
		t.Error(e)
	}
	cfg.Root, cfg.Users.UID = cloneDir(t, dir), 0
	if e := startError(t, cfg); e.Step != "configure" {
		t.Error(e)
	}
}

// TestUserNamespaceOutput opens /dev/stdout, a pipe of the host's.
func TestUserNamespaceOutput(t *testing.T) {
	dir := newDir(t)
	for _, user := range []string{"", "7"} {
		cfg := launching(cloneDir(t, dir), "/probe", "write", "/dev/stdout")
		cfg.Users, cfg.User = ownIDs(t, dir), user
		if out, _ := output(t, cfg); !strings.Contains(out, "/dev/stdout true") {
			t.Errorf("as %q: %s", user, out)
		}
	}
}
