package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/holders"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Switch changes the backend that serves a mounted union.
//
// The new union is mounted beneath the old one, which is then taken away (MOVE_MOUNT_BENEATH of move_mount(2), since
// Linux 6.5). So there is always a union to be seen, and a program that opens files by their paths sees no error and
// misses no file. What remains is to keep two writers from one upper layer:
//
//   - A union that this process serves is paused: requests wait, until the kernel has mounted its overlay. Then they
//     are answered ESTALE, on which the kernel looks up the path again and comes to the overlay.
//   - The kernel's overlay cannot be paused. So the new union is one that makes its callers wait, until the overlay is
//     gone: no path leads there any more, and what is at work there ends.
//
// Who has something open in the old union stays there. So the switch is refused if there are any, unless Lazy is set.
type Switch struct {
	Target  string    // where the union is mounted
	Dev     uint64    // st_dev of its root
	Old     View      // nil if no process of ours has it: the kernel serves it
	Backend Successor // of the new union
	Spec    layer.Spec

	// Lazy leaves those who have something open in the old union there. See Yielding for what they can do if it was
	// served by this process. An overlay is made read-only behind them, unless they have files open for writing.
	Lazy bool
}

// Switched is a union that was switched.
type Switched struct {
	View View             // the new one
	Left []holders.Holder // who is left in the old one
	Took time.Duration    // how long callers had to wait at most
}

// HeldError says that a union cannot be switched because it is held.
type HeldError struct{ Holders []holders.Holder }

func (e *HeldError) Error() string {
	first := e.Holders[0].String()
	if n := len(e.Holders) - 1; n > 0 {
		first += fmt.Sprintf(" and %d more", n)
	}
	return "it is in use by " + first
}

const (
	// patience is how long those who hold the old union are watched for one that does not let go.
	patience = 250 * time.Millisecond

	// A pause that does not come to rest is given up after pauseTime, so that callers do not have to wait for long, and
	// tried again after pauseGap, in which they get on. One may wait for another: it has a directory open and wants a
	// lock that a waiting one has.
	pauseTime  = 150 * time.Millisecond
	pauseGap   = 20 * time.Millisecond
	pauseTries = 20

	// endTime is how long callers of the new union wait for the overlay to be gone. Nobody was known to hold it.
	endTime = 5 * time.Second

	// lazyTime is the same where it is known to be held: what else is at work there gets this time to end.
	lazyTime = 100 * time.Millisecond
)

// Run makes the switch. After an error the old union is as it was.
func (s *Switch) Run(ctx context.Context) (*Switched, error) {
	if err := canBeneath(); err != nil {
		return nil, err
	}
	entry, err := s.mounted()
	if err != nil {
		return nil, err
	}
	prev := &layer.Previous{Dev: s.Dev}
	if held, ok := s.Old.(Holding); ok {
		prev.Stack = held.Stack()
	}
	if err := prev.Check(s.Spec); err != nil {
		return nil, err
	}
	if err := s.Backend.Supports(ctx, s.Spec); err != nil {
		return nil, err
	}
	search, err := holders.NewSearch(s.Dev, entry.ID)
	if err != nil {
		return nil, err
	}
	left, err := search.Lasting(ctx, patience)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 && !s.Lazy {
		return nil, &HeldError{left}
	}
	old, err := s.openOld()
	if err != nil {
		return nil, err
	}
	run := &running{Switch: s, entry: entry, prev: prev, old: old, search: search, left: left}
	defer run.closeOld()
	if y, ok := s.Old.(Yielding); ok {
		err = run.fromServed(ctx, y)
	} else {
		err = run.fromKernel(ctx)
	}
	if err != nil && run.next == nil {
		return nil, err
	}
	return &Switched{View: run.next, Left: left, Took: time.Since(run.began)}, err
}

func canBeneath() error {
	switch err := sys.CanMoveBeneath(); err {
	case nil:
		return nil
	case unix.EPERM:
		return errors.New("no privilege to mount: run as root, or in the user namespace that mounted the union")
	case unix.EINVAL:
		return errors.New("this kernel cannot mount beneath a mount, so there would be a moment without the union: it needs Linux 6.5, or unmount, and mount with the other backend")
	default:
		return fmt.Errorf("move_mount: %w", err)
	}
}

// mounted returns the mount of the old union, which must be on top and without mounts inside.
func (s *Switch) mounted() (mountinfo.Entry, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return mountinfo.Entry{}, err
	}
	top, ok := mountinfo.Top(entries, s.Target)
	if !ok || top.Device() != s.Dev {
		return top, fmt.Errorf("another mount is on %q by now: try again", s.Target)
	}
	for _, e := range entries {
		if e.Parent == top.ID && e.ID != top.ID {
			return top, fmt.Errorf("something is mounted inside, on %q: unmount it first", e.MountPoint)
		}
		if e.ID == top.Parent && e.MountPoint == s.Target && e.Device() == s.Dev {
			return top, fmt.Errorf("the union is mounted twice on %q: unmount one", s.Target)
		}
	}
	return top, nil
}

// openOld returns an O_PATH descriptor of the root of the old mount.
func (s *Switch) openOld() (int, error) {
	fd, err := sys.Openat(unix.AT_FDCWD, s.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", s.Target, err)
	}
	var stx unix.Statx_t
	// Without asking a file system that may be paused.
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &stx); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("stat %q: %w", s.Target, err)
	}
	if unix.Mkdev(stx.Dev_major, stx.Dev_minor) != s.Dev {
		unix.Close(fd)
		return -1, fmt.Errorf("another mount is on %q by now: try again", s.Target)
	}
	return fd, nil
}

// running is a switch on its way.
type running struct {
	*Switch
	entry mountinfo.Entry
	prev  *layer.Previous
	old   int // O_PATH, the root of the old mount
	left  []holders.Holder

	search *holders.Search // for holders of the old union

	began time.Time // since when callers wait
	next  Next      // once it is mounted
}

// fromServed switches from a union that this process serves.
func (r *running) fromServed(ctx context.Context, old Yielding) error {
	if err := flush(old.Stack()); err != nil {
		return err
	}
	if err := r.pause(ctx, old); err != nil {
		return err
	}
	next, err := r.open(ctx)
	if err == nil {
		if err = next.AttachBeneath(r.old); err != nil {
			err = errors.Join(fmt.Errorf("mount beneath %q: %w", r.Target, err), next.Close())
		}
	}
	if err != nil {
		return errors.Join(err, old.Resume())
	}
	r.next = next
	if err := r.unmountOld(); err != nil {
		return err
	}
	old.Retire(r.heldDirectories())
	return next.Begin(nil)
}

// flush writes what the upper layer has in memory, before anybody has to wait.
func flush(s *layer.Stack) error {
	if s.Upper == nil || s.Spec.Options.Volatile {
		return nil
	}
	fd, err := s.Upper.Root.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(fd)
		err = sys.Syncfs(fd)
	}
	if err != nil {
		return fmt.Errorf("write the upper layer to disk: %w", err)
	}
	return nil
}

// pause brings the old union to rest.
func (r *running) pause(ctx context.Context, old Yielding) error {
	for range pauseTries {
		r.began = time.Now()
		limited, cancel := context.WithTimeout(ctx, pauseTime)
		closed := r.closed
		if r.Lazy {
			closed = nil
		}
		err := old.Pause(limited, closed)
		cancel()
		if err == nil {
			if r.Lazy {
				return nil
			}
			var done bool
			if done, err = r.closed(); done { // nobody has just opened a directory, or changed into one
				return nil
			}
			err = errors.Join(err, old.Resume())
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauseGap):
		}
	}
	if held, err := r.search.All(); err != nil {
		return err
	} else if held = slices.DeleteFunc(held, r.isOwn); len(held) > 0 {
		return &HeldError{held}
	}
	return errors.New("it does not come to rest: a request takes long, as when a large file is copied up; try again later, or pass --lazy")
}

// closed reports whether nobody has anything open in the old union, but for mappings of files.
func (r *running) closed() (bool, error) {
	held, err := r.search.Open()
	return err == nil && !slices.ContainsFunc(held, func(h holders.Holder) bool { return !r.isOwn(h) }), err
}

// heldDirectories returns the inode numbers of the directories that somebody has open in the old union, which is paused.
func (r *running) heldDirectories() (inodes []uint64) {
	held, _ := r.search.Open() // else they are none that can be found
	for _, h := range held {
		if ino, ok := h.Directory(); ok && !r.isOwn(h) {
			inodes = append(inodes, ino)
		}
	}
	return inodes
}

// isOwn reports whether a holder is the descriptor of this switch.
func (r *running) isOwn(h holders.Holder) bool {
	return h.PID == os.Getpid() && h.Use == strconv.Itoa(r.old)
}

// open opens the new union, with the flags that the mount of the old one has now.
func (r *running) open(ctx context.Context) (Next, error) {
	view, err := r.Backend.OpenNext(ctx, r.Spec, r.prev)
	if err != nil {
		return nil, err
	}
	var set, clear uint64
	for option := range strings.SplitSeq(r.entry.MountOptions, ",") {
		set |= mountAttrs[option]
	}
	if set&unix.MOUNT_ATTR_NOATIME != 0 {
		clear = unix.MOUNT_ATTR__ATIME
	}
	if err := sys.SetMountAttr(view.FD(), set, clear); err != nil {
		return nil, errors.Join(fmt.Errorf("set the flags %q of the new mount: %w", r.entry.MountOptions, err), view.Close())
	}
	return view.(Next), nil
}

var mountAttrs = map[string]uint64{
	"ro":          unix.MOUNT_ATTR_RDONLY,
	"nosuid":      unix.MOUNT_ATTR_NOSUID,
	"nodev":       unix.MOUNT_ATTR_NODEV,
	"noexec":      unix.MOUNT_ATTR_NOEXEC,
	"noatime":     unix.MOUNT_ATTR_NOATIME,
	"nodiratime":  unix.MOUNT_ATTR_NODIRATIME,
	"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
}

// unmountOld takes the old mount away, also if another one has been put on it. From here there is no way back: the new
// one cannot be taken away from beneath it. It fails only where the mount could not have been put there either.
func (r *running) unmountOld() error {
	if err := unix.Unmount(sys.ProcPath(r.old, ""), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("take away the old union: %w; the new one is beneath it", err)
	}
	return nil
}
