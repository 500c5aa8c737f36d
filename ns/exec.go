package ns

import (
	"errors"
	"os"
	"syscall"
)

// Exec is a process that was added to a container.
type Exec struct {
	c        *Container
	id       int
	answers  <-chan answer
	terminal *os.File
}

// errEnded is for what is asked of a container that has ended.
var errEnded = &Error{Step: "ask pid 1", Err: os.ErrProcessDone, Fix: "start the container again"}

// Exec starts a process in the container, confined as its program is, in a session of its own. It ends with the
// container at the latest.
func (c *Container) Exec(p Process) (*Exec, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var files []*os.File
	if !p.Terminal {
		files = p.stdio(null)
		c.users.own(files)
	}
	what := p.wire()
	id, answers, err := c.ask(request{Start: &what}, files...)
	if err != nil {
		return nil, err
	}
	a, ok := <-answers
	switch {
	case !ok:
		return nil, errEnded
	case a.Failed != nil:
		return nil, newError(a.Failed)
	}
	e := &Exec{c: c, id: id, answers: answers}
	if len(a.files) > 0 {
		e.terminal = a.files[0]
	}
	return e, nil
}

// ask sends a request with a new number, and returns where the answer will be.
func (c *Container) ask(r request, files ...*os.File) (int, <-chan answer, error) {
	c.mu.Lock()
	if c.answers == nil {
		c.mu.Unlock()
		return 0, nil, errEnded
	}
	c.last++
	r.ID = c.last
	answers := c.expect(r.ID)
	c.mu.Unlock()
	if err := c.socket.Send(r, files...); err != nil {
		return 0, nil, &Error{Step: errEnded.Step, Err: errors.Join(os.ErrProcessDone, err), Fix: errEnded.Fix}
	}
	return r.ID, answers, nil
}

// Wait returns the exit code of the process when it has ended; 128+9 if it ended with the container.
func (e *Exec) Wait() int {
	if a, ok := <-e.answers; ok && a.Exited != nil {
		return *a.Exited
	}
	return 128 + int(syscall.SIGKILL)
}

// Signal sends a signal to the process; of no effect if it has ended.
func (e *Exec) Signal(s syscall.Signal) error {
	return e.c.socket.Send(request{ID: e.id, Signal: s})
}

// Terminal returns the other end of the terminal of the process, nil if it has none. Who takes it closes it.
func (e *Exec) Terminal() *os.File { return e.terminal }

// Freeze stops every process of the container, and Thaw lets them go on; also those that had stopped by themselves.
// It is done with SIGSTOP by pid 1, so it takes no cgroup; but parents see that their children stop.
func (c *Container) Freeze() error { return c.do(request{Freeze: true}) }

// Thaw lets go on what Freeze has stopped.
func (c *Container) Thaw() error { return c.do(request{Thaw: true}) }

func (c *Container) do(r request) error {
	_, answers, err := c.ask(r)
	if err != nil {
		return err
	}
	a, ok := <-answers
	if !ok {
		return errEnded
	}
	if a.Failed != nil {
		return newError(a.Failed)
	}
	return nil
}
