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

// daemonName is the name under which unionfsd starts itself to serve a union.
const daemonName = "unionfsd-daemon"

// A daemon reads its job from stdin and reports on descriptor reportFD: "ok" and perhaps a message when what it serves
// is live, else what went wrong. Then nothing of it is left that its caller could wait for: a container engine waits
// until stderr is closed.
const (
	reportFD = 3
	reportOK = "ok\n"
)

// spawn starts a daemon for j and returns when the union is live. The warning is about what is not as it should be
// with a union that is.
func (j job) spawn() (warning string, err error) {
	warning, _, err = startDaemon(daemonName, j.Target, j)
	return warning, err
}

// startDaemon starts this binary under another name to do a job that outlives this process, and returns what it says
// when it has begun, or why it could not, with its exit code. The title is for whoever looks at ps.
func startDaemon(name, title string, job any) (message string, code int, err error) {
	wrong := func(err error) (string, int, error) { return "", exitFailed, fmt.Errorf("start the daemon: %w", err) }
	self, err := os.Executable()
	if err != nil {
		return wrong(err)
	}
	// Whatever else this process has inherited: its owner may be waiting for the last copy to be closed.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return wrong(fmt.Errorf("close_range: %w", err))
	}
	report, theirs, err := os.Pipe()
	if err != nil {
		return wrong(err)
	}
	defer report.Close()
	cmd := &exec.Cmd{
		Path:        self,
		Args:        []string{name, title},
		Dir:         "/",
		Stderr:      os.Stderr, // for the trace of a crash before the report
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		theirs.Close()
		return wrong(err)
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return wrong(err)
	}
	sent := gob.NewEncoder(stdin).Encode(job)
	stdin.Close()
	text, err := io.ReadAll(report)
	if err != nil {
		return wrong(err)
	}
	if message, ok := strings.CutPrefix(string(text), reportOK); ok {
		return message, 0, cmd.Process.Release()
	}
	err = cmd.Wait()
	code = cmd.ProcessState.ExitCode()
	if len(text) == 0 {
		return "", code, fmt.Errorf("the daemon ended without a word (%v)", errors.Join(err, sent))
	}
	return "", code, errors.New(string(text))
}

// reportFunc tells the caller of a daemon that its job has begun. An error means that the caller is gone.
type reportFunc func(message string) error

// runDaemon is the whole life of a process that startDaemon starts. It reads the job, does it, and returns the exit
// code.
func runDaemon(job any, do func(report reportFunc) (int, error)) int {
	report := os.NewFile(reportFD, "report")
	unix.CloseOnExec(reportFD)
	// The name that ps and top show. It may fail where /proc is not mounted, and nothing hangs on it.
	os.WriteFile("/proc/self/comm", []byte("unionfsd"), 0)
	err := gob.NewDecoder(os.Stdin).Decode(job)
	code := exitFailed
	if err == nil {
		code, err = do(func(message string) error { return ready(report, message) })
	}
	if err != nil {
		// Before the report this tells the caller; after it nobody listens, and the write fails.
		io.WriteString(report, err.Error())
	}
	return code
}

// daemon is the whole life of the process that spawn starts.
func daemon() int {
	var j job
	return runDaemon(&j, func(report reportFunc) (int, error) {
		err := j.serve(context.Background(), daemonSignals(), func(warning error) error {
			if warning != nil {
				return report(warning.Error())
			}
			return report("")
		})
		if err != nil {
			return exitFailed, err
		}
		return 0, nil
	})
}

// ready lets go of the caller's files and tells it that what it asked for is live. An error means that the caller is
// gone.
func ready(report *os.File, message string) error {
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
	if _, err := io.WriteString(report, reportOK+message); err != nil {
		return fmt.Errorf("the command that asked for this is gone: %w", err)
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
