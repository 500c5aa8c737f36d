package ns

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/wire"
)

// initName is the argv[0] by which a process knows that it is to be init.
const initName = "unionfsd-init"

// Descriptors that init is started with, after the program's own three.
const (
	socketFD = 3 + iota
	rootFD
	bindFD // the first of those for verbBind
)

// Init must be the first thing that main calls. In a process that [Start] made to be the init of a container it
// does that duty and exits; in every other it returns at once.
func Init() {
	if len(os.Args) > 0 && os.Args[0] == initName {
		os.Exit(runInit())
	}
}

// pid1 is the init of a container.
type pid1 struct {
	supervisor *wire.Conn
	confine    confinement

	mu        sync.Mutex  // held from before a fork until the child is known
	processes map[int]int // their numbers, by pid
	program   int         // pid of process 0
}

// runInit is the life of pid 1. It returns the exit code of the program.
func runInit() int {
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "%s: only unionfsd itself starts this\n", initName)
		return ExitFailed
	}
	if err := hide(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", initName, err)
		return ExitFailed
	}
	socket, err := wire.FromFile(os.NewFile(socketFD, "supervisor"), maxOrder)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", initName, err)
		return ExitFailed
	}
	p := &pid1{supervisor: socket, processes: map[int]int{}}
	if err := p.begin(); err != nil {
		step := op{Verb: verbInit}
		if e, ok := errors.AsType[*stepError](err); ok {
			step, err = e.op, e.err
		}
		// If the supervisor is gone there is nobody to tell.
		_ = p.supervisor.Send(report{Failed: fail(step, err)})
		return ExitFailed
	}
	code, err := p.reap()
	if err != nil {
		_ = p.supervisor.Send(report{Failed: fail(op{Verb: verbInit}, err)})
		return ExitFailed
	}
	_ = p.supervisor.Send(report{Exited: &code})
	return code
}

// hide keeps the container away from this process, which is of the host: no program inherits a descriptor of it, and
// nobody who has not CAP_SYS_PTRACE sees its memory or gets at its executable through /proc/1/exe. There are no other
// descriptors of the host's, see clone.
func hide() error {
	// Else ps shows "exe"; no more than that. Afterwards this file is root's.
	_ = os.WriteFile("/proc/self/comm", []byte(initName), 0)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if err := unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// begin does what the order says, and starts to serve the supervisor.
func (p *pid1) begin() error {
	var o order
	if err := p.supervisor.Receive(&o); err != nil {
		return err
	}
	p.confine = o.Confine
	// From here on, so that a signal that comes before there is a program waits for it.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, catchable()...)
	ready := make(chan struct{})
	go p.serve(ready)

	syscall.Umask(0) // modes in the plan are meant as they are
	x := newExecutor(o.Binds)
	for _, step := range o.Ops {
		if err := x.do(step); err != nil {
			return &stepError{step, err}
		}
	}
	x.close()
	syscall.Umask(0o022)
	if err := p.start(0, o.Program, [3]uintptr{0, 1, 2}, x.terminal); err != nil {
		return err
	}
	// What the terminal sends to the process group reaches the program directly, and is not to be forwarded.
	if err := syscall.Setpgid(0, 0); err != nil && err != syscall.EPERM { // EPERM: the leader of a session of its own
		return fmt.Errorf("setpgid: %w", err)
	}
	close(ready)
	go func() {
		for s := range signals {
			_ = syscall.Kill(p.program, s.(syscall.Signal)) // it may just have ended
		}
	}()
	return nil
}

// start starts process id, on its terminal if that is not nil, and reports that. It closes the terminal.
func (p *pid1) start(id int, what process, stdio [3]uintptr, t *terminal) error {
	var files []*os.File
	if t != nil {
		defer t.close()
		stdio = [3]uintptr{t.program.Fd(), t.program.Fd(), t.program.Fd()}
		files = append(files, t.master)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := p.confine.spawn(what, stdio)
	if err != nil {
		return err
	}
	p.processes[pid] = id
	if id == 0 {
		p.program = pid
	}
	return p.supervisor.Send(report{ID: id, Started: true}, files...)
}

// serve does what the supervisor asks for, when the program runs, and ends the container when the supervisor is gone.
func (p *pid1) serve(ready <-chan struct{}) {
	for {
		var r request
		if err := p.supervisor.Receive(&r); err != nil {
			os.Exit(ExitFailed)
		}
		files := p.supervisor.Files()
		<-ready
		answer := report{ID: r.ID, Done: true}
		var err error
		switch {
		case r.Start != nil:
			answer.Done = false // start reports by itself
			err = p.startFurther(r.ID, *r.Start, files)
		case r.Signal != 0:
			answer.Done = false // nobody waits
			p.signal(r.ID, r.Signal)
		case r.Freeze:
			err = freeze()
		case r.Thaw:
			err = thaw()
		}
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			step := op{Verb: verbInit}
			if e, ok := errors.AsType[*stepError](err); ok {
				step, err = e.op, e.err
			}
			answer = report{ID: r.ID, Failed: fail(step, err)}
		}
		if answer.Done || answer.Failed != nil {
			_ = p.supervisor.Send(answer)
		}
	}
}

// startFurther starts a process beside the program.
func (p *pid1) startFurther(id int, what process, files []*os.File) error {
	what.Session = true
	var stdio [3]uintptr
	var t *terminal
	if what.Terminal {
		var err error
		if t, err = openTerminalPair(); err != nil {
			return &stepError{op{Verb: verbTerminal}, err}
		}
	} else {
		if len(files) != 3 {
			return fmt.Errorf("%d descriptors instead of 3", len(files))
		}
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return pathError("open", "/", err)
		}
		defer unix.Close(root)
		for i, f := range files {
			if err := containNull(root, int(f.Fd())); err != nil {
				return &stepError{op{Verb: verbStdio}, err}
			}
			stdio[i] = f.Fd()
		}
	}
	return p.start(id, what, stdio, t)
}

// signal sends a signal to a process if it still is one.
func (p *pid1) signal(id int, s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, i := range p.processes {
		if i == id {
			_ = syscall.Kill(pid, s)
		}
	}
}

// freeze stops all processes of the container but this one. A fork that is under way is done again after it
// (copy_process returns -ERESTARTNOINTR), so none gets away.
func freeze() error { return unix.Kill(-1, unix.SIGSTOP) }

func thaw() error { return unix.Kill(-1, unix.SIGCONT) }

// reap waits for every child, those that the dying leave to pid 1 included, until the program ends, and returns its
// exit code. The ends of other processes of the supervisor's are reported.
func (p *pid1) reap() (int, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait4: %w", err)
		}
		p.mu.Lock()
		id, known := p.processes[pid]
		delete(p.processes, pid)
		p.mu.Unlock()
		code := exitCode(status)
		switch {
		case known && id == 0:
			return code, nil
		case known:
			_ = p.supervisor.Send(report{ID: id, Exited: &code})
		}
	}
}

// exitCode returns the exit status of a process as a shell would: 128+N if signal N ended it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
