package layer

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Previous is a mounted union whose place another one of the same layers is about to take.
type Previous struct {
	Dev   uint64 // st_dev of its root, by which its mounts are known
	Stack *Stack // its layers, and its locks on the upper one; nil where no process of ours has them open
}

// Check opens the layers of spec to see whether they are those of the mounted union still: their paths may lead
// elsewhere by now, into the union itself if that was mounted on one of them.
func (p *Previous) Check(spec Spec) error {
	s, err := OpenReadOnly(spec)
	if err != nil {
		return err
	}
	defer s.Close()
	return p.check(s)
}

func (p *Previous) check(s *Stack) error {
	ours := slices.Concat(s.layers(), s.Data)
	var before []*Layer
	if p.Stack != nil {
		before = slices.Concat(p.Stack.layers(), p.Stack.Data)
		if len(before) != len(ours) {
			return fmt.Errorf("%d layers are to take the place of %d: name the same ones", len(ours), len(before))
		}
	}
	for i, l := range ours {
		if l.Dev == p.Dev {
			return fmt.Errorf("layer %q is covered by the union itself: unmount, and mount again", l.Path)
		}
		if p.Stack == nil {
			continue
		}
		if same, err := sameDir(l.Root.Self(), before[i].Root.Self()); err != nil {
			return fmt.Errorf("layer %q: %w", l.Path, err)
		} else if !same {
			return fmt.Errorf("another directory is in the place of layer %q: move it back, or unmount and mount again", l.Path)
		}
	}
	return nil
}

func sameDir(a, b Ref) (bool, error) {
	var sa, sb unix.Stat_t
	if err := a.Stat(&sa); err != nil {
		return false, err
	}
	err := b.Stat(&sb)
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino, err
}

// lock locks the upper layer and the work directory, or shares the locks that the union before has.
func (p *Previous) lock(upper, workdir *Dir) (upperLock, workLock int, err error) {
	lock := func(d *Dir, held func(*Work) int) (int, error) {
		if p != nil && p.Stack != nil && held(p.Stack.Work) >= 0 {
			return shareLock(held(p.Stack.Work), d)
		}
		return lockDir(d)
	}
	upperLock, workLock = -1, -1
	if upperLock, err = lock(upper, func(w *Work) int { return w.upperLock }); err == nil {
		workLock, err = lock(workdir, func(w *Work) int { return w.lock })
	}
	return upperLock, workLock, err
}

// shareLock returns a copy of the descriptor that holds the lock on the directory d.
func shareLock(held int, d *Dir) (int, error) {
	same, err := sameDir(RefFD(held), d.Self())
	if err != nil {
		return -1, err
	}
	if !same {
		return -1, fmt.Errorf("another directory is in the place of %q: move it back, or unmount and mount again", d.layer.Path)
	}
	return unix.FcntlInt(uintptr(held), unix.F_DUPFD_CLOEXEC, 0)
}

// Unlock lets another union have the upper layer. What this one has open stays so.
func (w *Work) Unlock() {
	for _, fd := range []*int{&w.lock, &w.upperLock} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
