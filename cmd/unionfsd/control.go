package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/wire"
)

// On the control socket of a container its supervisor answers. A connection is one controlRequest, and then
// controlReplies:
//
//	Exec    Started, with the other end of the terminal if there is one, and Exited; the process ends with the
//	        connection. Meanwhile further requests may have a Signal for it.
//	Signal, Freeze, Thaw    Done
//
// or in the place of any of them Failure.
type controlRequest struct {
	Exec   *program       `json:",omitempty"` // its three files come along, but with a terminal
	Signal syscall.Signal `json:",omitempty"`
	Freeze bool           `json:",omitempty"`
	Thaw   bool           `json:",omitempty"`
}

type controlReply struct {
	Started bool   `json:",omitempty"`
	Exited  *int   `json:",omitempty"`
	Done    bool   `json:",omitempty"`
	Failure string `json:",omitempty"`
	Code    int    `json:",omitempty"` // what to exit with after a Failure
}

// maxControl is the size of a request: arguments may have 2 MiB.
const maxControl = 16 << 20

// listen answers on the control socket until the function that it returns is called.
func (s *supervisor) listen() (stop func(), err error) {
	l, err := s.home.ListenControl()
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.answer(wire.New(conn.(*net.UnixConn), maxControl))
		}
	}()
	return func() { l.Close() }, nil
}

// answer serves one connection.
func (s *supervisor) answer(c *wire.Conn) {
	defer c.Close()
	var r controlRequest
	if c.Receive(&r) != nil {
		return
	}
	var err error
	switch {
	case r.Exec != nil:
		s.exec(c, *r.Exec)
		return
	case r.Signal != 0:
		err = s.inside.Signal(r.Signal)
	case r.Freeze:
		err = s.pause(true)
	case r.Thaw:
		err = s.pause(false)
	}
	if err != nil {
		_ = c.Send(failureReply(err))
		return
	}
	_ = c.Send(controlReply{Done: true})
}

func failureReply(err error) controlReply {
	return controlReply{Failure: err.Error(), Code: startCode(err)}
}

func (s *supervisor) pause(on bool) error {
	s.mu.Lock()
	paused := s.record.Paused
	s.mu.Unlock()
	switch {
	case on == paused && on:
		return errors.New("it is paused already")
	case on == paused:
		return errors.New("it is not paused")
	case on:
		if err := s.inside.Freeze(); err != nil {
			return err
		}
	default:
		if err := s.inside.Thaw(); err != nil {
			return err
		}
	}
	return s.update(func(c *state.Container) { c.Paused = on })
}

// exec runs a process in the container for who is on the other end of c.
func (s *supervisor) exec(c *wire.Conn, p program) {
	files := c.Files()
	var stdio [3]*os.File
	if !p.Terminal && len(files) == 3 {
		copy(stdio[:], files)
	}
	if p.User == "" {
		p.User = s.Program.User
	}
	e, err := s.inside.Exec(p.process(stdio[0], stdio[1], stdio[2]))
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		_ = c.Send(failureReply(err))
		return
	}
	var terminal []*os.File
	if t := e.Terminal(); t != nil {
		terminal = append(terminal, t)
	}
	sent := c.Send(controlReply{Started: true}, terminal...)
	for _, t := range terminal {
		t.Close()
	}
	if sent != nil {
		_ = e.Signal(syscall.SIGKILL)
	}
	go func() {
		for {
			var r controlRequest
			if c.Receive(&r) != nil {
				_ = e.Signal(syscall.SIGKILL) // who wanted it is gone
				return
			}
			if r.Signal != 0 {
				_ = e.Signal(r.Signal)
			}
		}
	}()
	code := e.Wait()
	_ = c.Send(controlReply{Exited: &code})
}

// dialContainer connects to the supervisor of a container.
func (a *app) dialContainer(ctx context.Context, name string) (*wire.Conn, error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	conn, err := root.DialControl(ctx, name)
	if err != nil {
		return nil, err
	}
	return wire.New(conn.(*net.UnixConn), maxControl), nil
}

// askContainer makes a request that is answered at once.
func (a *app) askContainer(ctx context.Context, name string, r controlRequest) error {
	c, err := a.dialContainer(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(r); err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	var reply controlReply
	if err := c.Receive(&reply); err != nil {
		return fmt.Errorf("the supervisor ended: %w", err)
	}
	if reply.Failure != "" {
		return errors.New(reply.Failure)
	}
	return nil
}
