package ns_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// exec runs the probe in c and returns what it writes, and its exit code.
func (c *container) exec(t testing.TB, p ns.Process) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.Stdout, p.Stderr = w, w
	e, err := c.Exec(p)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), e.Wait()
}

func probeArgs(args ...string) ns.Process {
	return ns.Process{Argv: append([]string{"/probe"}, args...)}
}

func TestExec(t *testing.T) {
	c := start(t, config(t, "sleep"))
	expect(t, c.out, "ready")
	if _, code := c.exec(t, probeArgs("exit", "7")); code != 7 {
		t.Errorf("exit code %d", code)
	}
	p := probeArgs("env")
	p.Env = []string{"A=b"}
	if out, _ := c.exec(t, p); out != `["A=b" "HOME=/root"]`+"\n" {
		t.Errorf("environment %s", out)
	}
	p = probeArgs("pwd")
	p.Dir = "/dev/shm"
	if out, _ := c.exec(t, p); out != "/dev/shm\n" {
		t.Errorf("working directory %s", out)
	}
	for i, want := range []string{"0", "1", "2"} {
		out, _ := c.exec(t, probeArgs("fds"))
		lines := strings.Split(out, "\n")
		if len(lines) < 3 || !strings.HasPrefix(lines[i], want) || strings.Contains(out, "socket:") {
			t.Errorf("descriptors %s", out)
		}
	}
	if out, _ := c.exec(t, probeArgs("stdin")); out != "/dev/null on /dev\n" {
		t.Errorf("standard input %s", out)
	}
	// It is confined as the program is.
	out, _ := c.exec(t, probeArgs("cat", "/proc/self/status"))
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t00000000a80425fb"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	for program, code := range map[string]int{"/nosuch": 127, "/": 126} {
		_, err := c.Exec(ns.Process{Argv: []string{program}})
		var e *ns.Error
		if !errors.As(err, &e) || e.ExitCode() != code || e.Fix == "" {
			t.Errorf("%s: %v", program, err)
		}
	}
	// It ends with the container.
	e, err := c.Exec(probeArgs("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Signal(os.Kill)
	c.end(t)
	if code := e.Wait(); code != 128+9 {
		t.Errorf("exit code %d", code)
	}
	if _, err := c.Exec(probeArgs("exit", "0")); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("after the end: %v", err)
	}
}

func TestExecSignal(t *testing.T) {
	c := start(t, config(t, "sleep"))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := probeArgs("signals")
	p.Stdout = w
	e, err := c.Exec(p)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(r)
	expect(t, out, "ready")
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGTERM} {
		if err := e.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, out, "1")
	if code := e.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestTerminal gives programs terminals of the container's.
func TestTerminal(t *testing.T) {
	cfg := config(t, "stdin")
	cfg.Terminal = true
	c, err := ns.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(c.Terminal())
	expect(t, out, "/dev/pts/0 on /dev/pts")
	if code, err := c.Wait(); code != 0 || err != nil {
		t.Error(code, err)
	}
	c.Terminal().Close()

	outer := start(t, config(t, "sleep"))
	p := probeArgs("signals")
	p.Terminal = true
	e, err := outer.Exec(p)
	if err != nil {
		t.Fatal(err)
	}
	master := e.Terminal()
	defer master.Close()
	out = bufio.NewReader(master)
	expect(t, out, "ready")
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 7, Col: 9}); err != nil {
		t.Fatal(err)
	}
	expect(t, out, "28") // SIGWINCH
	fmt.Fprint(master, "\x03")
	if line, _ := out.ReadString('\n'); !strings.HasSuffix(line, "2\r\n") { // ^C is a signal: it is its terminal
		t.Errorf("after ^C: %q", line)
	}
	_ = e.Signal(syscall.SIGTERM)
	if code := e.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestFreeze stops a container and lets it go on.
func TestFreeze(t *testing.T) {
	c := start(t, config(t, "spawn", "2"))
	expect(t, c.out, "ready")
	space := pidNamespace(t, c.Pid())
	states := func() string {
		var all []string
		for _, pid := range inNamespace(space) {
			b, _ := os.ReadFile("/proc/" + pid + "/stat")
			if text := string(b); !strings.Contains(text, "unionfsd-init") {
				all = append(all, strings.Fields(text[strings.LastIndexByte(text, ')')+1:])[0])
			}
		}
		return strings.Join(all, "")
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "all are stopped", func() bool { return states() == "TTT" })
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "all sleep", func() bool { return states() == "SSS" })
}
