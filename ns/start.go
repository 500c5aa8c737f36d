package ns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/wire"
)

// Container is a running program and its init.
type Container struct {
	init     *os.Process
	socket   *wire.Conn
	users    *UserNamespace
	terminal *os.File

	mu      sync.Mutex
	last    int                 // number of the last process
	answers map[int]chan answer // who waits for reports, by number; closed when there will be none any more

	done chan struct{} // closed after code and err were set
	code int
	err  error
}

// answer is a report with what came along.
type answer struct {
	report
	files []*os.File
}

// attributes returns how init is made: the namespaces that a container has of its own.
func attributes(cfg Config) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		// Not by clone(2): the root of a cgroup namespace is the group of who makes it, and this process is in another one.
		Unshareflags: unix.CLONE_NEWCGROUP,
		Pdeathsig:    syscall.SIGKILL,
	}
	if cfg.PrivateNetwork {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if cfg.Cgroup != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(cfg.Cgroup.Fd())
	}
	if cfg.Users != nil {
		cfg.Users.apply(attr)
	}
	return attr
}

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
	c := &Container{users: cfg.Users, answers: map[int]chan answer{}, done: make(chan struct{})}
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

	foreground := InForeground()
	program := c.expect(0)
	err := c.clone(cfg)
	if err == nil {
		err = c.handOver(cfg, program)
	}
	started <- err
	if err != nil {
		return
	}
	c.code, c.err = c.await(program)
	c.socket.Close()
	if foreground {
		takeForeground()
	}
	close(c.done)
}

// clone starts init in new namespaces, with a socket to it.
func (c *Container) clone(cfg Config) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return cloneError(fmt.Errorf("socketpair: %w", err))
	}
	theirs := os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()
	if c.socket, err = wire.FromFile(os.NewFile(uintptr(pair[0]), "init"), maxReport); err != nil {
		return cloneError(err)
	}
	// What this process has inherited itself is not for init. Here is the place to see to it: init could not close it
	// without closing what the Go runtime may have opened there before main.
	if err := unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		c.socket.Close()
		return cloneError(fmt.Errorf("close_range: %w", err))
	}
	if err := c.cloneInit(cfg, theirs); err != nil {
		c.socket.Close()
		return cloneError(err)
	}
	return nil
}

func (c *Container) cloneInit(cfg Config, socket *os.File) error {
	files, closeFiles, err := initFiles(cfg, socket)
	if err != nil {
		return err
	}
	defer closeFiles()
	self, err := sealedSelf(cfg.Users != nil)
	if err != nil {
		return err
	}
	defer self.Close()
	c.init, err = os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", self.Fd()), []string{initName}, &os.ProcAttr{
		Env:   initEnv,
		Files: files,
		Sys:   attributes(cfg),
	})
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path is that of a descriptor
	}
	return err
}

// initFiles returns the descriptors that init starts with, in the order of [socketFD], [rootFD] and [bindFD], and a
// function that closes those which were opened for it.
func initFiles(cfg Config, socket *os.File) ([]*os.File, func(), error) {
	var opened []*os.File
	closeAll := func() {
		for _, f := range opened {
			f.Close()
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	opened = append(opened, null)
	stdio := cfg.stdio(null)
	cfg.Users.own(stdio)
	files := append(stdio, socket)
	mounts := []int{cfg.Root}
	for _, m := range cfg.Mounts {
		if m.FS == "" {
			mounts = append(mounts, m.FD)
		}
	}
	for _, fd := range mounts {
		// A copy, since an os.File closes its descriptor when it is collected.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("descriptor %d of a mount: %w", fd, err)
		}
		opened = append(opened, os.NewFile(uintptr(dup), "mount"))
		files = append(files, opened[len(opened)-1])
	}
	return files, closeAll, nil
}

// stdio returns the first three descriptors of the program, null for those that it has none.
func (p Process) stdio(null *os.File) []*os.File {
	files := []*os.File{p.Stdin, p.Stdout, p.Stderr}
	for i, f := range files {
		if f == nil || p.Terminal {
			files[i] = null
		}
	}
	return files
}

// handOver sends init the order and returns when the program runs. If that fails init is gone and the socket closed.
func (c *Container) handOver(cfg Config, program <-chan answer) error {
	confine, err := cfg.confine()
	if err != nil {
		return err
	}
	o := order{Ops: plan(cfg), Confine: confine, Program: cfg.wire()}
	for _, m := range cfg.Mounts {
		if m.FS == "" {
			o.Binds++
		}
	}
	// An init that fails early does not read the order, but it has reported.
	sendErr := c.socket.Send(o)
	go c.listen()
	a, reported := <-program
	if a.Started {
		if len(a.files) > 0 {
			c.terminal = a.files[0]
		}
		return nil
	}
	_ = c.init.Kill()
	state, err := c.init.Wait()
	c.socket.Close()
	if reported && a.Failed != nil {
		return newError(a.Failed)
	}
	return &Error{Step: op{Verb: verbInit}.name(), Err: fmt.Errorf("it died: %v: %w", state, errors.Join(sendErr, err, io.ErrUnexpectedEOF))}
}

// expect returns where the reports about process id will arrive.
func (c *Container) expect(id int) <-chan answer {
	ch := make(chan answer, 2) // Started and Exited, or Failed
	c.answers[id] = ch
	return ch
}

// listen hands the reports of init to those who wait for them, until there are no more.
func (c *Container) listen() {
	for {
		var a answer
		if c.socket.Receive(&a.report) != nil {
			break
		}
		a.files = c.socket.Files()
		c.mu.Lock()
		ch := c.answers[a.ID]
		if ch != nil && len(ch) < cap(ch) {
			ch <- a
		} else {
			closeAll(a.files) // not what init would say
		}
		if !a.Started && ch != nil {
			close(ch)
			delete(c.answers, a.ID)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.answers {
		close(ch)
	}
	c.answers = nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// await waits for the end of init and returns the exit code of the program.
func (c *Container) await(program <-chan answer) (int, error) {
	state, err := c.init.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for pid 1 of the container: %w", err)
	}
	// Init has ended, so there is a report or the end of the file.
	if a, ok := <-program; ok && a.Exited != nil {
		return *a.Exited, nil
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

// Terminal returns the other end of the program's terminal, nil if it has none. Who takes it closes it.
func (c *Container) Terminal() *os.File { return c.terminal }
