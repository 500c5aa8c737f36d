package ns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Container is a running program and its init.
type Container struct {
	init    *os.Process
	reports *json.Decoder
	done    chan struct{} // closed after code and err were set
	code    int
	err     error
}

// cloneFlags are the namespaces that a container has of its own. The network is the host's.
const cloneFlags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// initEnv is the environment of init, which the container can read in /proc/1/environ. Init does next to nothing,
// so one processor is enough, and it must not keep the cgroup files open that Go would watch to count processors.
var initEnv = []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// Start launches a program in a container, and returns when it runs. The container ends with its program, and with
// this process, however that dies. If it cannot be started the error is an [*Error] and nothing is left of it but
// the directories it made for mount points.
//
// Start makes all descriptors of this process above 2 close-on-exec. Most are; the others are what it inherited
// itself, and a container must not have.
func Start(cfg Config) (*Container, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Container{done: make(chan struct{})}
	started := make(chan error)
	go c.supervise(cfg, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// supervise lives as long as the container. It does not leave its thread: the kernel kills init when the thread
// that cloned it ends (PR_SET_PDEATHSIG), and Go ends threads when it likes.
func (c *Container) supervise(cfg Config, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	foreground := inForeground()
	socket, err := c.clone(cfg)
	if err == nil {
		err = c.handOver(plan(cfg), socket)
	}
	started <- err
	if err != nil {
		return
	}
	c.code, c.err = c.await()
	socket.Close()
	if foreground {
		takeForeground()
	}
	close(c.done)
}

// clone starts init in new namespaces and returns the supervisor's end of the socket to it.
func (c *Container) clone(cfg Config) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, cloneError(fmt.Errorf("socketpair: %w", err))
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "init"), os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()

	// What this process has inherited itself is not for init. Here is the place to see to it: init could not close it
	// without closing what the Go runtime may have opened there before main.
	if err := unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		ours.Close()
		return nil, cloneError(fmt.Errorf("close_range: %w", err))
	}
	files, closeFiles, err := initFiles(cfg, theirs)
	if err == nil {
		defer closeFiles()
		c.init, err = os.StartProcess("/proc/self/exe", []string{initName}, &os.ProcAttr{
			Env:   initEnv,
			Files: files,
			Sys: &syscall.SysProcAttr{
				Cloneflags: cloneFlags,
				Pdeathsig:  syscall.SIGKILL,
			},
		})
	}
	if err != nil {
		ours.Close()
		return nil, cloneError(err)
	}
	return ours, nil
}

// initFiles returns the descriptors that init starts with, in the order of [socketFD] and [rootFD], and a function
// that closes those which were opened for it.
func initFiles(cfg Config, socket *os.File) ([]*os.File, func(), error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	// A copy, since an os.File closes its descriptor when it is collected.
	fd, err := unix.FcntlInt(uintptr(cfg.Root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		null.Close()
		return nil, nil, fmt.Errorf("root descriptor %d: %w", cfg.Root, err)
	}
	root := os.NewFile(uintptr(fd), "root")
	files := []*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr, socket, root}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	return files, func() { null.Close(); root.Close() }, nil
}

// handOver sends init the plan and returns when the program runs. If that fails init is gone and the socket closed.
func (c *Container) handOver(ops []op, socket *os.File) error {
	// The container's root may be able to speak in the name of pid 1, so there is a limit to what is read.
	c.reports = json.NewDecoder(io.LimitReader(socket, 1<<20))
	// An init that fails early does not read the order, but it has reported.
	sendErr := json.NewEncoder(socket).Encode(order{ops})
	var r report
	recvErr := c.reports.Decode(&r)
	if recvErr == nil && r.Started {
		return nil
	}
	_ = c.init.Kill()
	state, err := c.init.Wait()
	socket.Close()
	if r.Failed != nil {
		return newError(r.Failed)
	}
	return &Error{Step: op{Verb: verbInit}.name(), Err: fmt.Errorf("it died: %v: %w", state, errors.Join(sendErr, recvErr, err))}
}

// await waits for the end of init and returns the exit code of the program.
func (c *Container) await() (int, error) {
	state, err := c.init.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for pid 1 of the container: %w", err)
	}
	// Init has ended, so there is a report or the end of the file.
	var r report
	if c.reports.Decode(&r) == nil && r.Exited != nil {
		return *r.Exited, nil
	}
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return exitCode(status), nil // killed, and the program with it
	}
	return 0, fmt.Errorf("pid 1 of the container died: %v", state)
}

// Wait returns when the program has ended and all processes of the container with it: its exit code, 128+N if
// signal N ended it. The error is not nil if that is not known. Any number of goroutines may wait.
func (c *Container) Wait() (code int, err error) {
	<-c.done
	return c.code, c.err
}

// Signal sends a signal to the program, by way of init. Those that init cannot catch go to init itself: SIGKILL ends
// the container. The error matches os.ErrProcessDone if the container has ended.
func (c *Container) Signal(s os.Signal) error {
	return c.init.Signal(s)
}

// Pid returns the process id of init on the host. Tools that enter namespaces take it: nsenter -t PID -a.
func (c *Container) Pid() int { return c.init.Pid }
