package mounttest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// A Promise is something that one backend does and another one does not.
type Promise int

// LiveLower: what is changed in a lower layer while the union is mounted is seen within 100 ms. The kernel leaves
// that undefined, but for the content of files.
const LiveLower Promise = iota

// limit is how long one mount may live: far longer than any check takes, and short enough to see that a union
// hangs.
const limit = 2 * time.Minute

// servers counts the Servers, which are the same in a test and in its children.
var servers int

// Server mounts the unions of one backend, each served by a child process.
type Server struct {
	name    string
	child   *testfs.Func
	live    bool
	options string // of every mount; see With
}

// NewServer makes a Server for the unions of backend b. Call it while the package is initialised, see
// [testfs.NewFunc].
func NewServer(b mount.Backend, promises ...Promise) *Server {
	s := &Server{name: b.Name()}
	for _, p := range promises {
		s.live = s.live || p == LiveLower
	}
	servers++
	s.child = testfs.NewFunc(fmt.Sprint("serve ", s.name, servers), func(_ []string, in *bufio.Reader, out io.Writer) error {
		return serve(b, in, out)
	})
	return s
}

// With is s with mount options for all unions, before those of each.
func (s *Server) With(options string) *Server {
	with := *s
	with.options = options
	return &with
}

// Name is the name of the backend.
func (s *Server) Name() string { return s.name }

// order is what a child is to mount.
type order struct {
	Spec   layer.Spec
	Target string
}

// serve is the life of a child: it gets an order, mounts, says so, is told that the union was unmounted, and must
// notice that itself, too.
func serve(b mount.Backend, in *bufio.Reader, out io.Writer) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	view, err := b.Open(context.Background(), o.Spec)
	if err == nil {
		if err = view.Attach(o.Target); err != nil {
			err = errors.Join(err, view.Close())
		}
	}
	if err != nil {
		fmt.Fprintf(out, "error %q\n", err.Error())
		return nil
	}
	fmt.Fprintln(out, "ready")

	ended := make(chan error, 1)
	go func() { ended <- view.Wait() }()
	if _, err := in.ReadBytes('\n'); err != nil {
		return fmt.Errorf("the parent went away: %w", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
	case <-time.After(10 * time.Second):
		return errors.New("the union was unmounted, but Wait did not return within 10 s")
	}
	if err := view.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Mount is a union that a child serves.
type Mount struct {
	Target string

	t     testing.TB
	proc  *testfs.Process
	timer *time.Timer
	late  atomic.Bool
	gone  bool
}

// Mount serves spec and mounts it on the directory target. It is unmounted at the end of the test, if not before.
func (s *Server) Mount(t testing.TB, spec layer.Spec, target string) *Mount {
	t.Helper()
	m, err := s.TryMount(t, spec, target)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return m
}

// TryMount is Mount where an error of the backend is expected.
func (s *Server) TryMount(t testing.TB, spec layer.Spec, target string) (*Mount, error) {
	t.Helper()
	all, unknown, err := layer.ParseOptions(s.options + "," + spec.String())
	if err != nil || len(unknown) > 0 {
		t.Fatalf("%s: options %q: unknown %q, %v", s.name, s.options, unknown, err)
	}
	line, err := json.Marshal(order{all, target})
	if err != nil {
		t.Fatal(err)
	}
	m := &Mount{Target: target, t: t, proc: s.child.Start(t)}
	m.timer = time.AfterFunc(limit, func() {
		m.late.Store(true)
		m.proc.Kill() // whoever waits for an answer gets ENOTCONN
	})
	if _, err := m.proc.In.Write(append(line, '\n')); err != nil {
		t.Fatalf("%s: server: %v", s.name, err)
	}
	answer, err := m.proc.Out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: server: %v", s.name, m.proc.Wait(time.Second))
	}
	if text, ok := strings.CutPrefix(strings.TrimSpace(answer), "error "); ok {
		m.timer.Stop()
		text, err := strconv.Unquote(text)
		if werr := m.proc.Wait(limit); werr != nil || err != nil {
			t.Fatalf("%s: server: %v", s.name, errors.Join(err, werr))
		}
		return nil, errors.New(text)
	}
	t.Cleanup(m.Unmount)
	return m, nil
}

// Kill kills the server, and unmounts what it leaves.
func (m *Mount) Kill() {
	m.t.Helper()
	m.gone = true
	m.timer.Stop()
	m.proc.Kill()
	_ = m.proc.Wait(15 * time.Second)
	if err := unix.Unmount(m.Target, unix.MNT_DETACH); err != nil {
		m.t.Errorf("unmount: %v", err)
	}
}

// Unmount unmounts the union, and waits until its server has ended as it should. If it does not, the test fails,
// and nothing is left of the union.
func (m *Mount) Unmount() {
	m.t.Helper()
	if m.gone {
		return
	}
	m.gone = true
	// A child that is being started holds copies of all descriptors up to its exec.
	syscall.ForkLock.RLock()
	err := unix.Unmount(m.Target, 0)
	syscall.ForkLock.RUnlock()
	if err != nil {
		m.t.Errorf("unmount: %v", err)
		_ = unix.Unmount(m.Target, unix.MNT_DETACH)
	}
	_, _ = io.WriteString(m.proc.In, "unmounted\n")
	if err := m.proc.Wait(15 * time.Second); err != nil {
		m.t.Errorf("server: %v", err)
	}
	if m.timer.Stop(); m.late.Load() {
		m.t.Errorf("the union was still busy after %v", limit)
	}
}
