package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take to end when it has no reason to go on.
const patience = 15 * time.Second

// process is a server or a client.
type process struct {
	cmd    *exec.Cmd
	stderr tail
	done   chan struct{} // closed when it has ended
	err    error         // how; valid then
}

// start starts cmd in a process group of its own. It ends with this thread, also if that is killed.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.stderr
	cmd.WaitDelay = time.Second // for what it has started to let go of its output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// while returns a context that ends when the process does, and then says so.
func (p *process) while(ctx context.Context, name string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("%s ended: %w", name, p.failure()))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// failure is why the process has ended, with its last words.
func (p *process) failure() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	if words := p.stderr.lastLine(); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// end waits for the process to end by itself, and kills it if it does not.
func (p *process) end() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s (process %d) did not end within %v and was killed", p.cmd.Args[0], p.cmd.Process.Pid, patience)
	}
}

// kill ends the process and all in its group.
func (p *process) kill() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	select {
	case <-p.done:
	case <-time.After(patience): // in the kernel, for good
	}
}

// cpu returns the CPU time that the process has used so far, all its threads together.
func (p *process) cpu() (time.Duration, error) {
	// clock_getcpuclockid(3): MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel, in nanoseconds, where
	// /proc/PID/stat has ticks.
	const sched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|sched), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", p.cmd.Process.Pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// forgetPeak starts to look for the peak of the resident memory anew.
func (p *process) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

// memory returns one of the sizes that proc_pid_status(5) has: "VmHWM", the peak of the resident memory, or "VmRSS".
func (p *process) memory(field string) (bytes int64, err error) {
	return sizeField(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), field)
}

// sizeField reads a line "field: N kB".
func sizeField(path, field string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, field)
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

func (t *tail) Write(b []byte) (int, error) {
	const limit = 16 << 10
	t.buf = append(t.buf, b...)
	if len(t.buf) > limit {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-limit:]...)
	}
	return len(b), nil
}

// lastLine is only to be called when the process has ended.
func (t *tail) lastLine() string {
	lines := bytes.Split(bytes.TrimSpace(t.buf), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}
