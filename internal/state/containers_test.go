package state

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func testRoot(t *testing.T) Root {
	t.Helper()
	r, err := At(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMain is also the supervisor that TestKilledSupervisor kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_HOLD"); dir != "" {
		r, err := At(dir)
		if err == nil {
			_, err = r.NewContainer(Container{Name: "held"})
		}
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestContainerLife(t *testing.T) {
	r := testRoot(t)
	if list, err := r.Containers(); err != nil || len(list) != 0 {
		t.Fatalf("containers of a root that does not exist: %v, %v", list, err)
	}
	h, err := r.NewContainer(Container{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if st, err := os.Stat(r.Dir()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("state root: mode %v, %v; want 0700", st.Mode(), err)
	}
	if st, err := os.Stat(h.Upper()); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("upper: mode %v, %v; want 0755", st.Mode(), err)
	}
	if c, err := r.Container("web"); err != nil || c.Status() != "starting" || c.Supervisor != os.Getpid() {
		t.Errorf("status %q of supervisor %d, %v; want starting of this process", c.Status(), c.Supervisor, err)
	}
	if _, err := r.NewContainer(Container{Name: "web"}); err == nil || !strings.Contains(err.Error(), "unionfsd rm web") {
		t.Errorf("a second container of that name: %v", err)
	}
	if err := r.RemoveContainer("web"); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("removal while running: %v", err)
	}
	code := 3
	if err := h.Save(Container{Name: "web", Command: []Text{"sh", "-c", "\xff"}, ExitCode: &code}); err != nil {
		t.Fatal(err)
	}
	h.Close()
	list, err := r.Containers()
	if err != nil || len(list) != 1 || list[0].Status() != "exited (3)" || list[0].Command[2] != "\xff" {
		t.Errorf("after its end: %+v, %v", list, err)
	}
	if err := r.RemoveContainer("web"); err != nil {
		t.Error(err)
	}
	if err := r.RemoveContainer("web"); !errors.Is(err, ErrNoContainer) {
		t.Errorf("second removal: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(r.Dir(), "containers"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestContainerNames(t *testing.T) {
	r := testRoot(t)
	for _, bad := range []string{".", "..", ".new-x", "a/b", "-a", "ä", "a b", strings.Repeat("a", 65)} {
		if h, err := r.NewContainer(Container{Name: bad}); err == nil {
			h.Close()
			t.Errorf("name %q was accepted", bad)
		}
		if _, err := r.Container(bad); !errors.Is(err, ErrNoContainer) {
			t.Errorf("Container(%q) = %v", bad, err)
		}
	}
	a, err := r.NewContainer(Container{Name: ""})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := r.NewContainer(Container{Name: ""})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.Name() == b.Name() || !validName(a.Name()) {
		t.Errorf("generated names %q and %q", a.Name(), b.Name())
	}
}

// A supervisor that is killed leaves a container that is told as dead and can be removed.
func TestKilledSupervisor(t *testing.T) {
	r := testRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STATE_TEST_HOLD="+r.Dir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	c, err := r.Container("held")
	if line != "held\n" || err != nil || c.Status() != "starting" {
		t.Errorf("while held: %q, status %q, %v", line, c.Status(), err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if c, err := r.Container("held"); err != nil || c.Status() != "died" {
		t.Errorf("after the kill: status %q, %v", c.Status(), err)
	}
	if err := r.RemoveContainer("held"); err != nil {
		t.Error(err)
	}
}

// What a killed creation or removal left over goes with the next creation.
func TestSweep(t *testing.T) {
	r := testRoot(t)
	parent, err := r.sub("containers")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{".new-1/upper", ".gone-2/upper/a", "kept"} {
		if err := os.MkdirAll(filepath.Join(parent, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h, err := r.NewContainer(Container{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var names []string
	left, _ := os.ReadDir(parent)
	for _, e := range left {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "kept one" {
		t.Errorf("containers/ holds %q; want kept one", got)
	}
}

// TestBrokenRecord has a record that a crash of the machine has emptied.
func TestBrokenRecord(t *testing.T) {
	r := testRoot(t)
	for _, name := range []string{"one", "two"} {
		h, err := r.NewContainer(Container{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	if err := os.Truncate(filepath.Join(r.Dir(), "containers/one/container.json"), 0); err != nil {
		t.Fatal(err)
	}
	list, err := r.Containers()
	if err != nil || len(list) != 2 || list[0].Name != "one" || list[0].Status() != "died" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := r.RemoveContainer("one"); err != nil {
		t.Error(err)
	}
}
