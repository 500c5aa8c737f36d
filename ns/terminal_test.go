package ns_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// onTerminalEnv names the environment variable that makes a test binary a supervisor on the terminal that is its
// standard input, with a container from the directory that the variable says.
const onTerminalEnv = "UNIONFSD_TEST_TERMINAL"

// runOnTerminal runs the probe on the terminal, and then says how it ended and whose the terminal is.
func runOnTerminal() int {
	root, err := unix.OpenTree(unix.AT_FDCWD, os.Getenv(onTerminalEnv), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cfg := launching(root, append([]string{"/probe"}, os.Args[1:]...)...)
	cfg.Stdin, cfg.Stdout, cfg.Stderr = os.Stdin, os.Stdout, os.Stderr
	c, err := ns.Start(cfg)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	stop := c.Forward()
	defer stop()
	fmt.Println("forwarding")
	code, err := c.Wait()
	pgrp, terr := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	fmt.Println("ended", code, err, "in the foreground", pgrp == unix.Getpgrp(), terr)
	return 0
}

// terminal is a supervisor on a terminal.
type terminal struct {
	*exec.Cmd
	master *os.File
	out    *bufio.Reader
}

// onTerminal starts a supervisor as the leader of a session on a new terminal, with the probe and args.
func onTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	dir := newDir(t)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave := os.NewFile(peer, "terminal")
	defer slave.Close()
	termios, err := unix.IoctlGetTermios(int(peer), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	termios.Lflag &^= unix.ECHO // what is typed would appear amid the output
	if err := unix.IoctlSetTermios(int(peer), unix.TCSETS, termios); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), onTerminalEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // ends the reading, too
	t.Cleanup(func() {
		timer.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		eventually(t, patience, "init is gone", func() bool { // this process is its parent now
			reapOrphans()
			return len(children(t)) == 0
		})
	})
	return &terminal{cmd, master, bufio.NewReader(master)}
}

// TestInterrupt types Ctrl-C, which the program must get, and get once. The supervisor, init and the program could
// all take it for theirs to pass on.
func TestInterrupt(t *testing.T) {
	tty := onTerminal(t, "signals")
	for range 2 { // "ready" of the program and "forwarding" of the supervisor, in either order
		if _, err := tty.out.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if _, err := tty.master.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		expect(t, tty.out, "2")
		// A second SIGINT would arrive before this one.
		if err := tty.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		expect(t, tty.out, "10")
	}
	if err := tty.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, tty.out, "end")
	expect(t, tty.out, "ended 0 <nil> in the foreground true <nil>")
}

// TestForeground runs a program that takes the terminal for a process group of its own, as shells do.
func TestForeground(t *testing.T) {
	tty := onTerminal(t, "foreground")
	expect(t, tty.out, "forwarding")
	expect(t, tty.out, "ended 0 <nil> in the foreground true <nil>")
}
