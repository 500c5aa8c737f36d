package doctor

import (
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Every check says what it found, and what is not well says more.
func TestRun(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Run() {
		t.Logf("%-4s  %-16s  %s  %s", c.Status, c.Name, c.Detail, c.Fix)
		if c.Name == "" || c.Detail == "" || seen[c.Name] {
			t.Errorf("check without a name, a detail, or twice: %+v", c)
		}
		if c.Status == OK && c.Fix != "" {
			t.Errorf("%s is well and has a fix", c.Name)
		}
		seen[c.Name] = true
	}
	for _, name := range []string{"kernel", "overlay", "fuse", "/dev/fuse", "user namespaces", "apparmor", "subuid", "cgroups"} {
		if !seen[name] {
			t.Errorf("no check of %s", name)
		}
	}
}

// What is tried is not left behind.
func TestRunLeavesNothing(t *testing.T) {
	Run() // opens what the runtime keeps open
	before := descriptors(t)
	Run()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child was left: %v", err)
	}
}

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestUsable(t *testing.T) {
	row := func(name string, s Status) Check { return Check{Name: name, Status: s} }
	for _, test := range []struct {
		name   string
		checks []Check
		want   bool
	}{
		{"both", []Check{row("overlay", OK), row("fuse", OK), row("/dev/fuse", OK)}, true},
		{"kernel only", []Check{row("overlay", Warn), row("fuse", OK), row("/dev/fuse", Fail)}, true},
		{"fuse only", []Check{row("overlay", Fail), row("fuse", OK), row("/dev/fuse", OK)}, true},
		{"neither", []Check{row("overlay", Fail), row("fuse", OK), row("/dev/fuse", Fail)}, false},
		{"no module", []Check{row("overlay", Fail), row("fuse", Fail), row("/dev/fuse", OK)}, false},
	} {
		if got := Usable(test.checks); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestHasRange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("ann:100000:65536\n1002:165536:65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, uid string
		want      bool
	}{{"ann", "1001", true}, {"bob", "1002", true}, {"an", "1", false}, {"eve", "100000", false}} {
		if got := hasRange(file, &user.User{Username: test.name, Uid: test.uid}); got != test.want {
			t.Errorf("%s (%s): %v", test.name, test.uid, got)
		}
	}
	if hasRange(file+".missing", &user.User{}) {
		t.Error("a range in a file that does not exist")
	}
}
