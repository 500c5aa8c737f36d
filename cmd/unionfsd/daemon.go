package main

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// daemonName is the name under which unionfsd starts itself to serve a union. It reads its job from stdin and
// reports on descriptor reportFD: "ok" and perhaps a warning when the union is live, else what went wrong. Then
// nothing of it is left that its caller could wait for: a container engine waits until stderr is closed.
const (
	daemonName = "unionfsd-daemon"
	reportFD   = 3
	reportOK   = "ok\n"
)

// spawn starts a daemon for j and returns when the union is live. The warning is about what is not as it should be
// with a union that is.
func (j job) spawn() (warning string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("start the daemon: %w", err)
	}
	// Whatever else this process has inherited: its owner may be waiting for the last copy to be closed.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return "", fmt.Errorf("start the daemon: close_range: %w", err)
	}
	report, theirs, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("start the daemon: %w", err)
	}
	defer report.Close()
	cmd := &exec.Cmd{
		Path:        self,
		Args:        []string{daemonName, j.Target}, // the target for whoever looks at ps
		Dir:         "/",
		Stderr:      os.Stderr, // for the trace of a crash before the report
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		theirs.Close()
		return "", fmt.Errorf("start the daemon: %w", err)
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return "", fmt.Errorf("start the daemon: %w", err)
	}
	sent := gob.NewEncoder(stdin).Encode(j)
	stdin.Close()
	text, err := io.ReadAll(report)
	if err != nil {
		return "", fmt.Errorf("start the daemon: %w", err)
	}
	if warning, ok := strings.CutPrefix(string(text), reportOK); ok {
		return warning, cmd.Process.Release()
	}
	err = cmd.Wait()
	if len(text) == 0 {
		return "", fmt.Errorf("the daemon ended without a word (%v)", errors.Join(err, sent))
	}
	return "", errors.New(string(text))
}

// daemon is the whole life of the process that spawn starts. It returns the exit code.
func daemon() int {
	report := os.NewFile(reportFD, "report")
	unix.CloseOnExec(reportFD)
	// The name that ps and top show. It may fail where /proc is not mounted, and nothing hangs on it.
	os.WriteFile("/proc/self/comm", []byte("unionfsd"), 0)
	var j job
	err := gob.NewDecoder(os.Stdin).Decode(&j)
	if err == nil {
		err = j.serve(context.Background(), daemonSignals(), func(warning error) error { return ready(report, warning) })
	}
	if err != nil {
		// Before the report this tells the caller; after it nobody listens, and the write fails.
		io.WriteString(report, err.Error())
		return exitFailed
	}
	return 0
}

// ready lets go of the caller's files and tells it that the union is live. An error means that the caller is gone.
func ready(report *os.File, warning error) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("dup: %w", err)
		}
	}
	text := reportOK
	if warning != nil {
		text += warning.Error()
	}
	if _, err := io.WriteString(report, text); err != nil {
		return fmt.Errorf("the command that asked for this union is gone: %w", err)
	}
	return report.Close()
}

// daemonSignals delivers what asks a daemon to unmount. It hears nothing of terminals.
func daemonSignals() <-chan os.Signal {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	return notify(syscall.SIGTERM)
}

// foregroundSignals delivers what asks "mount -f" to unmount.
func foregroundSignals() <-chan os.Signal {
	return notify(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
}

func notify(signals ...os.Signal) <-chan os.Signal {
	c := make(chan os.Signal, 4)
	signal.Notify(c, signals...)
	return c
}
