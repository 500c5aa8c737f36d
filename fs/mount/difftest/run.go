package difftest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// Failure is a difference between the two sides.
type Failure struct {
	After int    // how many operations were done
	What  string // an operation, or what was compared after the operations
	Sides [2]string
}

// kind is what must stay the same while a case is made smaller.
func (f *Failure) kind() string {
	what, _, _ := strings.Cut(strings.TrimPrefix(f.What, "user "), " ")
	return what
}

// Run does c on the unions of a and b and returns the first difference, or nil. An error is a case that cannot be
// run.
func Run(t testing.TB, a, b *mounttest.Server, c Case) (*Failure, error) {
	t.Helper()
	// The umask would be the same on both sides, but the results not the same everywhere.
	defer unix.Umask(unix.Umask(0o022))
	start := time.Now().Add(-time.Hour)
	var sides [2]*side
	for i, s := range []*mounttest.Server{a, b} {
		var err error
		if sides[i], err = newSide(t, s, c, start); err != nil {
			if i > 0 {
				sides[0].unmount()
			}
			return nil, err
		}
	}
	both := func(f func(s *side) string) (out [2]string) {
		for i, s := range sides {
			out[i] = f(s)
		}
		return out
	}
	unmount := func() {
		for _, s := range sides {
			s.unmount()
		}
	}
	for i, o := range c.Ops {
		if got := both(func(s *side) string { return s.do(o) }); got[0] != got[1] {
			unmount()
			return &Failure{i + 1, o.String(), got}, nil
		}
	}
	differ := func(what string, f func(s *side) string) *Failure {
		if got := both(f); got[0] != got[1] {
			return &Failure{len(c.Ops), what, got}
		}
		return nil
	}
	merged := sides[0].merged()
	failure := differ("merged tree", (*side).merged)
	unmount()
	if failure == nil {
		failure = differ("upper layer", (*side).upper)
	}
	if failure == nil {
		failure = exchanged(sides, len(c.Ops), merged)
	}
	return failure, nil
}

// exchanged mounts the layers of each side with the backend of the other, and compares with what was seen before.
func exchanged(sides [2]*side, ops int, before string) *Failure {
	sides[0].server, sides[1].server = sides[1].server, sides[0].server
	for _, s := range sides {
		s.mount()
		after := s.merged()
		s.unmount()
		if after != before {
			return &Failure{After: ops, What: "exchange: tree of an upper layer of the other backend, seen by " + s.server.Name(), Sides: [2]string{before, after}}
		}
	}
	return nil
}

// Stress does the operations of c on one union of s, by several workers at once, each with open files of its own.
// Their results depend on who comes first, and are not looked at; but then the union must show what is in its
// layers: the same tree after it was mounted again, and as other shows it.
func Stress(t testing.TB, s, other *mounttest.Server, c Case, workers int) (*Failure, error) {
	t.Helper()
	defer unix.Umask(unix.Umask(0o022))
	x, err := newSide(t, s, c, time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for w := range workers {
		mine := *x // the array of open files, too
		wg.Go(func() {
			for i := w; i < len(c.Ops); i += workers {
				if o := c.Ops[i]; o.Kind != "remount" {
					mine.do(o)
				}
			}
			for i := range mine.open {
				_ = mine.closeSlot(i)
			}
		})
	}
	wg.Wait()
	before := x.merged()
	x.unmount()
	for _, x.server = range []*mounttest.Server{s, other} {
		x.mount()
		after := x.merged()
		x.unmount()
		if after != before {
			return &Failure{len(c.Ops), "tree after a remount by " + x.server.Name(), [2]string{before, after}}, nil
		}
	}
	return nil, nil
}

// Report is the text of a failure: what differed, and the case that shows it.
func (f *Failure) Report(a, b *mounttest.Server, c Case) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s\n", f.What)
	if strings.Contains(f.Sides[0]+f.Sides[1], "\n") {
		fmt.Fprintf(&w, "-%s +%s:\n%s", a.Name(), b.Name(), testfs.Diff(f.Sides[0], f.Sides[1]))
	} else {
		fmt.Fprintf(&w, "%8s: %s\n%8s: %s\n", a.Name(), f.Sides[0], b.Name(), f.Sides[1])
	}
	fmt.Fprintf(&w, "\nThe case, to be run again with -difftest.case=FILE:\n%s", c)
	return w.String()
}
