package ns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// TestAttack tries system calls that have been ways out of containers.
func TestAttack(t *testing.T) {
	lines := func(s ns.Security) map[string]string {
		cfg := config(t, "attack")
		cfg.Security = s
		out, _ := output(t, cfg)
		m := map[string]string{}
		for line := range strings.Lines(out) {
			what, errno, _ := strings.Cut(strings.TrimSpace(line), ": ")
			m[what] = errno
		}
		return m
	}
	filtered, open := lines(ns.Security{}), lines(ns.Security{AnySyscall: true, AddCaps: []string{"ALL"}})
	if len(filtered) < 20 || len(open) != len(filtered) {
		t.Fatalf("%d and %d answers", len(filtered), len(open))
	}
	for what, errno := range filtered {
		want := "EPERM"
		switch what {
		case "clone3", "x32":
			want = "ENOSYS"
		case "getpid", "personality, ask", "socket inet":
			want = "ok"
		}
		if errno != want {
			t.Errorf("%s: %s, want %s", what, errno, want)
		}
		// That is the work of the filter, where the call is one that a capability allows.
		if what == "unshare user" || what == "fsopen" || what == "personality" {
			if open[what] == "EPERM" {
				t.Errorf("%s is denied without the filter, too", what)
			}
		}
	}
}

func TestCapabilities(t *testing.T) {
	all := statusLine(t, "CapBnd") // a supervisor has no more to give
	for _, c := range []struct {
		security ns.Security
		user     string
		eff, bnd string
		nnp      string
	}{
		{ns.Security{}, "", "00000000a80425fb", "00000000a80425fb", "1"},
		{ns.Security{}, "1000:1000", "0000000000000000", "00000000a80425fb", "1"},
		{ns.Security{DropCaps: []string{"all"}}, "", "0000000000000000", "0000000000000000", "1"},
		{ns.Security{DropCaps: []string{"ALL"}, AddCaps: []string{"cap_net_admin"}}, "", "0000000000001000", "0000000000001000", "1"},
		{ns.Security{DropCaps: []string{"MKNOD"}, NewPrivileges: true}, "", "00000000a00425fb", "00000000a00425fb", "0"},
		{ns.Security{Privileged: true}, "", all, all, "0"},
	} {
		cfg := config(t, "cat", "/proc/self/status")
		cfg.Security, cfg.User = c.security, c.user
		out, _ := output(t, cfg)
		for key, want := range map[string]string{"CapEff": c.eff, "CapPrm": c.eff, "CapBnd": c.bnd, "CapInh": "0000000000000000",
			"CapAmb": "0000000000000000", "NoNewPrivs": c.nnp} {
			if !strings.Contains(out, key+":\t"+want+"\n") {
				t.Errorf("%+v as %q: %s is not %s", c.security, c.user, key, want)
			}
		}
	}
	cfg := config(t, "exit", "0")
	cfg.AddCaps = []string{"NONSENSE"}
	if e := startError(t, cfg); e.Step != "configure" || e.Fix == "" {
		t.Error(e)
	}
}

// statusLine returns a value of /proc/self/status.
func statusLine(t *testing.T, key string) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(text), key+":\t")
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// TestSelfExe tries to change the binary of the host through pid 1, and through a program that is a script for it.
func TestSelfExe(t *testing.T) {
	cfg := config(t, "overwrite", "/proc/1/exe")
	if out, _ := output(t, cfg); !strings.Contains(out, "by name: true") || strings.Contains(out, "by descriptor") {
		t.Errorf("as it is by default:\n%s", out)
	}
	cfg = config(t, "overwrite", "/proc/1/exe")
	cfg.Privileged = true
	if out, _ := output(t, cfg); !strings.Contains(out, "by name: true") || !strings.Contains(out, "by descriptor: true") {
		t.Errorf("privileged:\n%s", out)
	}
	st, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat("/proc/self/exe"); err != nil || now.ModTime() != st.ModTime() || now.Size() != st.Size() {
		t.Errorf("the binary has changed: %v", err)
	}
}

// TestHidden looks at what of /proc and /sys is hidden, and what is read-only.
func TestHidden(t *testing.T) {
	files := []string{"/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity"}
	cfg := config(t, append([]string{"write"}, files...)...)
	out, _ := output(t, cfg)
	for _, f := range files {
		if !strings.Contains(out, f+" false open "+f+": read-only file system") {
			t.Errorf("%s can be written:\n%s", f, out)
		}
	}
	for _, f := range []string{"/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		if out, _ := output(t, config(t, "cat", f)); out != "" {
			t.Errorf("%s says %q", f, out)
		}
	}
	cfg = config(t, "cat", "/proc/interrupts")
	cfg.Unmasked = true
	if out, _ := output(t, cfg); out == "" {
		t.Error("it says nothing where nothing is masked")
	}
}

func TestNetwork(t *testing.T) {
	cfg := config(t, "cat", "/proc/net/dev")
	cfg.PrivateNetwork = true
	out, _ := output(t, cfg)
	if strings.Count(out, ":") != 1 || !strings.Contains(out, "lo:") {
		t.Errorf("interfaces\n%s", out)
	}
	cfg = config(t, "cat", "/sys/class/net/lo/flags")
	cfg.PrivateNetwork = true
	if out, _ := output(t, cfg); out != "0x9\n" { // IFF_UP, IFF_LOOPBACK
		t.Errorf("flags of lo: %s", out)
	}
}

func TestLimits(t *testing.T) {
	cfg := config(t, "cat", "/proc/self/limits")
	cfg.Limits = []ns.Limit{{Resource: unix.RLIMIT_MSGQUEUE, Soft: 77, Hard: 99}, {Resource: unix.RLIMIT_CORE}}
	out, _ := output(t, cfg)
	joined := strings.Join(strings.Fields(out), " ")
	if !strings.Contains(joined, "msgqueue size 77 99") || !strings.Contains(joined, "core file size 0 0") {
		t.Errorf("limits\n%s", out)
	}
}

// TestMounts mounts a directory, a file and a tmpfs, where a root with hostile links has places for them.
func TestMounts(t *testing.T) {
	dir, source := newDir(t), t.TempDir()
	outside := t.TempDir()
	for name, text := range map[string]string{"file": "a file", "sub/file": "below"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"abs": outside, "up": "../../../../.." + outside, "run": "var/run"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "var/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(path, source string, attr int) ns.Mount {
		fd := cloneDir(t, source)
		return ns.Mount{Path: path, FD: fd, Attr: attr}
	}
	cfg := launching(cloneDir(t, dir), "/probe", "write", "/data/x", "/data/sub/file", "/one/file", "/tmp/x", "/var/run/x", "/run/here/x")
	cfg.Mounts = []ns.Mount{
		mount("/one/file", filepath.Join(source, "file"), 0),
		mount("/data", source, unix.MOUNT_ATTR_RDONLY),
		{Path: "/tmp", FS: "tmpfs", Options: []string{"size=64k"}},
		mount("/run/here", source, 0), // through a link of the root
	}
	out, _ := output(t, cfg)
	for what, want := range map[string]bool{"/data/x": false, "/data/sub/file": false, "/one/file": true, "/tmp/x": true,
		"/var/run/x": true, "/run/here/x": true} {
		if !strings.Contains(out, fmt.Sprintf("%s %v", what, want)) {
			t.Errorf("write to %s: not %v in\n%s", what, want, out)
		}
	}
	for _, path := range []string{"/abs/here", "/up/here"} {
		cfg := launching(cloneDir(t, dir), "/probe", "exit", "0")
		cfg.Mounts = []ns.Mount{mount(path, source, 0)}
		_, _ = ns.Start(cfg) // whether it can be made or not, it is not outside
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("%s was made outside: %v, %v", path, entries, err)
		}
	}
	cfg = launching(cloneDir(t, dir), "/probe", "exit", "0")
	cfg.Mounts = []ns.Mount{mount("/proc/self/root/x", source, 0)}
	if e := startError(t, cfg); e.Fix == "" {
		t.Error(e)
	}
}

func TestUser(t *testing.T) {
	dir := newDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nwww:x:33:44::/var/www:/bin/sh\n", "group": "staff:x:50:www\nother:x:60:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string][2]string{ // uid, gid
		"": {"0", "0"}, "www": {"33", "44"}, "www:other": {"33", "60"}, "7": {"7", "0"}, "7:8": {"7", "8"}, "33": {"33", "44"},
	} {
		cfg := launching(cloneDir(t, dir), "/probe", "cat", "/proc/self/status")
		cfg.User = user
		out, _ := output(t, cfg)
		if !strings.Contains(out, "Uid:\t"+want[0]+"\t") || !strings.Contains(out, "Gid:\t"+want[1]+"\t") {
			t.Errorf("%q: not %v in\n%s", user, want, out)
		}
		if strings.HasPrefix(user, "www") && !strings.Contains(out, "Groups:\t50 ") && user == "www" {
			t.Errorf("%q: no group 50 in\n%s", user, out)
		}
	}
	cfg := launching(cloneDir(t, dir), "/probe", "env")
	cfg.User = "www"
	if out, _ := output(t, cfg); out != `["HOME=/var/www"]`+"\n" {
		t.Errorf("environment %s", out)
	}
	for _, user := range []string{"nobody", "www:nogroup", "-1", "99999999999"} {
		cfg := launching(cloneDir(t, dir), "/probe", "exit", "0")
		cfg.User = user
		if e := startError(t, cfg); !strings.HasPrefix(e.Step, "user ") || e.ExitCode() != 125 || e.Fix == "" {
			t.Errorf("%q: %v", user, e)
		}
	}
}
