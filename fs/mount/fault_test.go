package mount_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// Each system call of a switch fails once: the union is then as it was, or switched, and nothing of it is lost.
func TestSwitchFaults(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		must(t, os.Remove(s.path("gone"))) // so that a whiteout is ready to be shared
		must(t, os.Mkdir(s.path("new"), 0o755))
		calls, refused := map[string]int{}, 0
		for n := 1; ; n++ {
			before := s.tree()
			r := s.tell(order{Backend: s.other(), Fault: n})
			s.backend = r.Now
			s.servedBy(s.backend)
			if d := testfs.Diff(before, s.tree()); d != "" {
				t.Fatalf("call %d (%s) failed, %q, and the tree differs:\n%s", n, r.Call, r.Err, d)
			}
			if s.backend == backend && r.Err == "" {
				t.Fatalf("call %d (%s) failed, there was no error, and the union was not switched", n, r.Call)
			}
			if r.Call == "" { // there are no more
				break
			}
			calls[r.Call]++
			if r.Err != "" {
				refused++
			}
			if s.backend != backend {
				// What failed may have come after the point of no return: then the union can be read.
				s.end()
				s.start(backend)
			} else {
				must(t, os.Remove(s.path("new")))
				must(t, os.Mkdir(s.path("new"), 0o755))
				must(t, os.WriteFile(s.path("new/x"), nil, 0o644))
				must(t, os.Remove(s.path("new/x")))
				must(t, os.WriteFile(s.path("a"), fmt.Append(nil, n), 0o644))
			}
		}
		t.Logf("%d refused; calls that failed: %v", refused, calls)
		if refused == 0 || calls["move_mount"] == 0 || calls["mount_setattr"] == 0 || calls["syncfs"] == 0 {
			t.Errorf("the calls of a switch were not among those that failed")
		}
	})
}

// A server that is killed at any moment of a switch leaves a union that can be unmounted, and nothing of it is lost.
func TestSwitchKilled(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		s := newSwitcher(t, backend, low)
		must(t, os.Remove(s.path("gone")))
		for n := range 12 {
			must(t, os.WriteFile(s.path(fmt.Sprint("new", n)), []byte("x"), 0o644))
			must(t, os.Remove(s.path(fmt.Sprint("new", n/2))))
			must(t, os.WriteFile(s.path(fmt.Sprint("new", n/2)), []byte("again"), 0o644))
			before := s.tree()
			s.tellAndKill(order{Backend: s.other()}, time.Duration(n)*5*time.Millisecond)
			s.start(s.backend)
			if d := testfs.Diff(before, s.tree()); d != "" {
				t.Fatalf("killed, and the tree differs:\n%s", d)
			}
		}
	})
}

// tellAndKill gives the server an order, kills it after a while, and unmounts what there is.
func (s *switcher) tellAndKill(o order, after time.Duration) {
	s.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The answer, if it comes in time: a switch takes as long as it takes to look for holders.
		_, _ = bufio.NewReader(s.proc.Out).ReadString('\n')
	}()
	s.send(o)
	time.Sleep(after)
	s.proc.Kill()
	<-done
	_ = s.proc.Wait(limit)
	s.ended = true
	for range 3 { // one may be beneath the other
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err == unix.EINVAL {
			return
		}
	}
	s.Fatal("there are three mounts")
}
