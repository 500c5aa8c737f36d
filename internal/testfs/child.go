package testfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// childName names the environment variable with the name of the [Func] that a test binary is to run.
const childName = "UNIONFS_TEST_CHILD"

// lifeline is the descriptor on which a child notices that its parent is gone.
const lifeline = 3

var funcs = map[string]*Func{}

// Func is a function that runs in a child process: the test binary, started again.
type Func struct {
	name string
	run  func(args []string, in *bufio.Reader, out io.Writer) error
}

// NewFunc registers a function that child processes can run. Its input and output are pipes to the parent, which
// reports its error as the test's. Call NewFunc while the package is initialised, since the child must find it
// too, and [Main] in TestMain.
func NewFunc(name string, run func(args []string, in *bufio.Reader, out io.Writer) error) *Func {
	if funcs[name] != nil {
		panic("testfs: two functions with the name " + name)
	}
	f := &Func{name, run}
	funcs[name] = f
	return f
}

// runChild is the life of a child process.
func runChild(name string) int {
	f := funcs[name]
	if f == nil {
		fmt.Fprintf(os.Stderr, "testfs: no function %q\n", name)
		return 2
	}
	go func() {
		// Not Pdeathsig, which is about the thread of the parent that forked; Go's threads come and go.
		_, _ = os.NewFile(lifeline, "lifeline").Read(make([]byte, 1))
		os.Exit(3)
	}()
	if err := f.run(os.Args[1:], bufio.NewReader(os.Stdin), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Process is a child that runs a [Func].
type Process struct {
	In  io.WriteCloser // its input
	Out *bufio.Reader  // its output
	Pid int

	out    *os.File // what Out reads; open to the end of the test, since it may be read after the child has ended
	stderr bytes.Buffer
	err    error
	done   chan struct{} // closed after err was set
}

// Start starts f in a child process, in a process group of its own. It is killed with its group at the end of the
// test if it still runs.
func (f *Func) Start(t testing.TB, args ...string) *Process {
	t.Helper()
	p, err := f.start(args)
	if err != nil {
		t.Fatalf("start %s: %v", f.name, err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.done
		p.out.Close()
	})
	return p
}

func (f *Func) start(args []string) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), childName+"="+f.name,
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // else each child of a -race binary ends a second late
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stderr = &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, outw, err := os.Pipe() // not StdoutPipe, which Wait closes while somebody may still read
	if err != nil {
		w.Close()
		return nil, err
	}
	defer outw.Close()
	cmd.Stdout = outw
	if p.In, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.Close()
		out.Close()
		return nil, err
	}
	p.Out, p.out = bufio.NewReader(out), out
	p.Pid = cmd.Process.Pid
	go func() {
		err := cmd.Wait()
		w.Close()
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", f.name, err, bytes.TrimSpace(p.stderr.Bytes()))
		}
		p.err = err
		close(p.done)
	}()
	return p, nil
}

// ErrTimeout is what Wait and Run return of a child that took too long.
var ErrTimeout = errors.New("time is up; killed")

// Wait waits until the child has ended, at most for d, after which it is killed with its process group. The error
// holds what the child said on its standard error.
func (p *Process) Wait(d time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(d):
		p.Kill()
		<-p.done
		return fmt.Errorf("%w after %v: %w", ErrTimeout, d, p.err)
	}
}

// Kill kills the child and its process group; nothing if it has ended.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
}

// Run runs f in a child process with the given arguments and returns its output. After d the child is killed with
// its process group.
func (f *Func) Run(t testing.TB, d time.Duration, args ...string) (string, error) {
	t.Helper()
	p := f.Start(t, args...)
	p.In.Close()
	timer := time.AfterFunc(d, p.Kill)
	defer timer.Stop()
	out, err := io.ReadAll(p.Out)
	if werr := p.Wait(d); werr != nil {
		err = werr
		if !timer.Stop() {
			err = fmt.Errorf("%w after %v: %w", ErrTimeout, d, werr)
		}
	}
	return string(out), err
}
