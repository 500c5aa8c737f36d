package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestTerminal drives a shell in a container through a terminal, as somebody does who sits there: job control, the size of
// the window, and the terminal as it was afterwards.
func TestTerminal(t *testing.T) {
	testfs.NeedRoot(t)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--root", filepath.Join(t.TempDir(), "state"), "run", "--rm", "-it", "--name", "tty",
		"-e", "PS1=> ", "--rootfs", "/", "bash", "--norc", "-i")
	cmd.Args[0] = "unionfsd"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill(); terminal.Close() })
	defer timer.Stop()
	out := bufio.NewReader(master)
	seen := ""
	until := func(what string) {
		t.Helper()
		for !strings.Contains(seen, what) {
			b, err := out.ReadByte()
			if err != nil {
				t.Fatalf("%v before %q in %q", err, what, seen)
			}
			seen += string(b)
		}
		_, seen, _ = strings.Cut(seen, what)
	}
	// What is typed is echoed, so what is waited for is never a part of it.
	for _, step := range []struct{ keys, want string }{
		{"tty; stty size\r", "/dev/pts/0\r\n33 99\r\n"},
		{"stat -c %t:%T /dev/pts/0 /dev/console\r", "88:0\r\n88:0\r\n"},
		{"echo by another $((40+2)) name >/dev/console\r", "by another 42 name\r\n"},
		{"sleep 1000\r", "1000"},
		{"\x03", "> "}, // ^C is for the program in the foreground, not for the shell
		{"echo code $?\r", "code 130\r\n"},
		{"sleep 1000\r", "1000"},
		{"\x1a", "Stopped"}, // ^Z
		{"kill -KILL %1; for i in $(seq 20); do sleep .1; jobs; done\r", "Killed"}, // as soon as the shell has seen it
		{"echo done $((6*7))\r", "done 42"},
	} {
		time.Sleep(50 * time.Millisecond) // until the program is in the foreground
		fmt.Fprint(master, step.keys)
		until(step.want)
	}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 11, Col: 22}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	fmt.Fprint(master, "stty size; exit 5\r")
	until("11 22\r\n")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	if after, err := term.GetState(int(terminal.Fd())); err != nil || fmt.Sprint(*after) != fmt.Sprint(*before) {
		t.Errorf("the terminal is %v, was %v (%v)", after, before, err)
	}
}
