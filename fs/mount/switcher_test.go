package mount_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/sys"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// limit bounds everything that touches a union.
const limit = time.Minute

var backends = map[string]mount.Successor{"fuse": union.Backend{}, "kernel": overlayfs.Backend{}}

// server is a child process that mounts a union and switches it as it is told, one line of JSON each.
var server = testfs.NewFunc("switching server", func(_ []string, in *bufio.Reader, out io.Writer) error {
	var s served
	replies := json.NewEncoder(out)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return s.end()
		}
		if err != nil {
			return err
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		if err := replies.Encode(s.do(o)); err != nil {
			return err
		}
	}
})

// order is what the server is to do: mount Spec on Target, or switch.
type order struct {
	Backend string
	Spec    layer.Spec
	Target  string
	Mount   bool
	Lazy    bool
	Fault   int  // which of the system calls is to fail with EIO; 0: none
	Forget  bool // do as if the view of the old union were another process's
}

// reply is what came of it.
type reply struct {
	Err  string
	Held []string // who holds the union: the uses
	Left int
	Took time.Duration
	Now  string // the backend that serves it now
	Call string // that failed
}

// served is the union of a server.
type served struct {
	view    mount.View
	backend string
	dev     uint64
	old     []mount.View
	faulted bool // a system call was made to fail
}

func (s *served) do(o order) reply {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var err error
	if o.Mount {
		s.backend = o.Backend
		if s.view, err = backends[o.Backend].Open(ctx, o.Spec); err == nil {
			err = s.view.Attach(o.Target)
		}
		return replyOf(nil, errors.Join(err, s.look(o.Target)))
	}
	sw := mount.Switch{Target: o.Target, Dev: s.dev, Old: s.view, Backend: backends[o.Backend], Spec: o.Spec, Lazy: o.Lazy}
	if o.Forget {
		if err := s.view.Close(); err != nil {
			return replyOf(nil, err)
		}
		sw.Old = nil
	}
	var failed atomic.Value
	if o.Fault > 0 {
		s.faulted = true
		var calls atomic.Int64
		sys.Inject(func(call string, done bool) error {
			if done || calls.Add(1) != int64(o.Fault) {
				return nil
			}
			failed.Store(call)
			return unix.EIO
		})
	}
	done, err := sw.Run(ctx)
	sys.Inject(nil)
	if done != nil {
		s.backend = o.Backend
		s.old = append(s.old, s.view)
		s.view = done.View
		err = errors.Join(err, s.look(o.Target))
	}
	r := replyOf(done, err)
	r.Now = s.backend
	r.Call, _ = failed.Load().(string)
	return r
}

func (s *served) look(target string) error {
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, target, unix.AT_STATX_DONT_SYNC, 0, &stx)
	s.dev = unix.Mkdev(stx.Dev_major, stx.Dev_minor)
	return err
}

func replyOf(done *mount.Switched, err error) (r reply) {
	if err != nil {
		r.Err = err.Error()
	}
	if held, ok := errors.AsType[*mount.HeldError](err); ok {
		for _, h := range held.Holders {
			r.Held = append(r.Held, fmt.Sprintf("%d %s %s %s", h.PID, h.Use, h.Mode, h.Path))
		}
	}
	if done != nil {
		r.Left, r.Took = len(done.Left), done.Took
	}
	return r
}

// end waits until the union is unmounted, and every one that it once was.
func (s *served) end() error {
	var errs []error
	for _, v := range append(s.old, s.view) {
		if v == nil {
			continue
		}
		ended := make(chan error, 1)
		go func() { ended <- v.Wait() }()
		select {
		case err := <-ended:
			if s.faulted && v != s.view && errors.Is(err, unix.EIO) {
				err = nil // the fault came when all was done, at the end of the old union, which tells of it
			}
			errs = append(errs, err, v.Close())
		case <-time.After(limit / 4):
			errs = append(errs, errors.New("a union does not end"))
		}
	}
	return errors.Join(errs...)
}

// switcher is a union on one backend, that can be switched to the other.
type switcher struct {
	*testing.T
	spec    layer.Spec
	dir     string
	backend string
	proc    *testfs.Process
	ended   bool
}

// newSwitcher mounts layers of the given trees, the topmost first, below an upper one.
func newSwitcher(t *testing.T, backend string, lowers ...string) *switcher {
	t.Helper()
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, len(lowers)+3)
	for i, text := range lowers {
		testfs.Write(t, dirs[i+3], text)
	}
	s := &switcher{T: t, dir: dirs[0], spec: layer.Spec{Upper: dirs[1], Work: dirs[2], Lower: dirs[3:]}}
	s.start(backend)
	return s
}

func (s *switcher) start(backend string) {
	s.Helper()
	s.proc, s.backend, s.ended = server.Start(s.T), backend, false
	if r := s.tell(order{Mount: true, Backend: backend}); r.Err != "" {
		s.Fatal(r.Err)
	}
	s.Cleanup(s.end)
}

// end unmounts the union and waits for its server.
func (s *switcher) end() {
	if s.ended {
		return
	}
	s.ended = true
	if err := unix.Unmount(s.dir, 0); err != nil {
		s.Errorf("unmount: %v", err)
		_ = unix.Unmount(s.dir, unix.MNT_DETACH)
	}
	s.proc.In.Close()
	if err := s.proc.Wait(limit); err != nil {
		s.Errorf("server: %v", err)
	}
}

func (s *switcher) tell(o order) reply {
	s.Helper()
	timer := time.AfterFunc(limit, s.proc.Kill)
	defer timer.Stop()
	s.send(o)
	answer, err := s.proc.Out.ReadBytes('\n')
	if err != nil {
		s.Fatalf("server: %v", s.proc.Wait(time.Second))
	}
	var r reply
	if err := json.Unmarshal(answer, &r); err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *switcher) send(o order) {
	s.Helper()
	o.Spec, o.Target = s.spec, s.dir
	line, err := json.Marshal(o)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.proc.In.Write(append(line, '\n')); err != nil {
		s.Fatal(err)
	}
}

// other is the backend that the union is not on.
func (s *switcher) other() string {
	if s.backend == "fuse" {
		return "kernel"
	}
	return "fuse"
}

// flip switches to the other backend.
func (s *switcher) flip(o order) reply {
	s.Helper()
	o.Backend = s.other()
	r := s.tell(o)
	if r.Err != "" {
		s.Fatalf("switch to %s: %s %q", o.Backend, r.Err, r.Held)
	}
	s.backend = o.Backend
	s.servedBy(s.backend)
	return r
}

// refuse wants a switch to fail, with an error that has want in it, and the union to be as it was.
func (s *switcher) refuse(o order, want string) reply {
	s.Helper()
	if o.Backend == "" {
		o.Backend = s.other()
	}
	r := s.tell(o)
	if !strings.Contains(r.Err, want) || r.Err == "" {
		s.Fatalf("switch to %s: error %q, want one with %q", o.Backend, r.Err, want)
	}
	s.servedBy(s.backend)
	return r
}

// servedBy checks which file system is mounted, alone.
func (s *switcher) servedBy(backend string) {
	s.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		s.Fatal(err)
	}
	want := map[string]int64{"fuse": unix.FUSE_SUPER_MAGIC, "kernel": unix.OVERLAYFS_SUPER_MAGIC}[backend]
	if st.Type != want {
		s.Fatalf("file system of type %#x, want %s", st.Type, backend)
	}
}

func (s *switcher) tree() string {
	return testfs.Fingerprint(s.dir, testfs.Options{Since: time.Unix(1<<40, 0)})
}

// path is the path of name in the union.
func (s *switcher) path(name string) string { return s.dir + "/" + name }
