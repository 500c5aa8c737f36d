package union_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// plan is what is to happen at one system call.
type plan struct {
	N     int        // which one, from 1; 0 is none
	Errno unix.Errno // what it fails with; 0 to be killed
	After bool       // killed after the call, not before
}

// command is what a child is told to do; one of its fields is set.
type command struct {
	Mount  *layer.Spec
	Target string
	Deny   string        // a system call that fails with EPERM in this union, until Allow
	Delay  time.Duration // before the data of lazy copies are copied in the background

	Allow bool

	Plan   *plan // for the system calls from here on
	Report bool  // what was done since, and no plan any more

	Unmounted bool
}

// report is the answer of a child.
type report struct {
	Err   string
	Calls []string // since the plan was made
}

// faultChild serves unions, one after the other, until its input ends. It answers each command with a report.
var faultChild = testfs.NewFunc("serve with faults", func(_ []string, in *bufio.Reader, out io.Writer) error {
	var i injector
	sys.Inject(i.see)
	var view mount.View
	commands, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c command
		if err := commands.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var r report
		var err error
		switch {
		case c.Mount != nil:
			i.denied(c.Deny)
			view, err = open(*c.Mount, c.Target, c.Delay)
		case c.Allow:
			i.denied("")
		case c.Unmounted:
			err = finish(view)
		case c.Plan != nil:
			i.begin(*c.Plan)
		case c.Report:
			r.Calls = i.end()
		}
		if err != nil {
			r.Err = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
})

func open(spec layer.Spec, target string, delay time.Duration) (mount.View, error) {
	var b union.Backend
	if spec.Options.FUSE.Lazy == layer.LazyOn {
		b.LazyFrom, b.LazyDelay = 1, delay
	}
	view, err := b.Open(context.Background(), spec)
	if err != nil {
		return nil, err
	}
	if err := view.Attach(target); err != nil {
		return nil, errors.Join(err, view.Close())
	}
	return view, nil
}

func finish(view mount.View) error {
	ended := make(chan error, 1)
	go func() { ended <- view.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(err, view.Close())
	case <-time.After(10 * time.Second):
		return errors.New("the union was unmounted, but Wait did not return within 10 s")
	}
}

// injector carries out a plan. Its method see is a sys.Fault.
type injector struct {
	mu    sync.Mutex
	plan  plan
	calls []string
	on    bool
	deny  string
}

func (i *injector) denied(call string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deny = call
}

func (i *injector) begin(p plan) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.plan, i.calls, i.on = p, nil, true
}

func (i *injector) end() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.on = false
	return i.calls
}

func (i *injector) see(call string, done bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.on && !done {
		i.calls = append(i.calls, call)
	}
	switch {
	case i.on && len(i.calls) == i.plan.N && i.plan.Errno == 0 && (done == i.plan.After || call == i.deny):
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL) // does not return
	case i.on && len(i.calls) == i.plan.N && i.plan.Errno != 0 && !done:
		return i.plan.Errno
	case call == i.deny:
		return unix.EPERM
	}
	return nil
}

// faultServer is a child that serves one union at a time.
type faultServer struct {
	t       testing.TB
	proc    *testfs.Process
	answers *json.Decoder
}

func newFaultServer(t testing.TB) *faultServer {
	t.Helper()
	p := faultChild.Start(t)
	return &faultServer{t: t, proc: p, answers: json.NewDecoder(p.Out)}
}

// tell tells the child what to do. The error is its answer, or that it has died.
func (s *faultServer) tell(c command) (report, error) {
	timer := time.AfterFunc(time.Minute, s.proc.Kill)
	defer timer.Stop()
	var r report
	if err := json.NewEncoder(s.proc.In).Encode(c); err != nil {
		return r, fmt.Errorf("server: %w", err)
	}
	if err := s.answers.Decode(&r); err != nil {
		return r, fmt.Errorf("server: %w", err)
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// end ends the child.
func (s *faultServer) end() {
	s.t.Helper()
	s.proc.In.Close()
	if err := s.proc.Wait(10 * time.Second); err != nil {
		s.t.Errorf("server: %v", err)
	}
}
