package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// fromKernel switches from an overlay.
func (r *running) fromKernel(ctx context.Context) error {
	if err := r.flushOld(); err != nil {
		return err
	}
	gone, err := watchEnd(r.old)
	if err != nil {
		return err
	}
	next, err := r.open(ctx)
	if err == nil {
		if err = next.AttachBeneath(r.old); err != nil {
			err = errors.Join(fmt.Errorf("mount beneath %q: %w", r.Target, err), next.Close())
		}
	}
	if err != nil {
		gone.stop()
		return err
	}
	r.next = next
	r.began = time.Now()
	if err := r.unmountOld(); err != nil {
		gone.stop()
		return err
	}
	r.awaitEnd(gone)
	return next.Begin(gone.closed)
}

// flushOld writes what the overlay has in memory, before anybody has to wait.
func (r *running) flushOld() error {
	fd, err := sys.Openat(r.old, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		defer unix.Close(fd)
		err = sys.Syncfs(fd)
	}
	if err != nil {
		return fmt.Errorf("write the upper layer to disk: %w", err)
	}
	return nil
}

// awaitEnd waits until the old overlay, which is unmounted, is gone, or until it is clear that some stay there.
func (r *running) awaitEnd(gone *end) {
	limit := endTime
	if len(r.left) > 0 {
		limit = lazyTime
	} else {
		r.closeOld() // it would stay for our sake
	}
	select {
	case <-gone.closed:
		return
	case <-time.After(limit):
	}
	if r.old >= 0 {
		// Files that are open for writing do not let it, and are the least of evils: they are written to in place.
		_ = makeReadOnly(r.old)
		r.closeOld()
	}
}

func (r *running) closeOld() {
	if r.old >= 0 {
		unix.Close(r.old)
		r.old = -1
	}
}

// makeReadOnly makes the file system with the given root read-only, for all its mounts. EBUSY if files are open for
// writing.
func makeReadOnly(root int) error {
	fd, err := unix.Fspick(root, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(fd)
}

// end tells of the end of a file system.
type end struct {
	closed chan struct{} // closed when the file system is gone, or when nobody can tell any more
	events *os.File
}

// watchEnd watches the file system that fd is the root of: inotify(7) has an event for its end, which comes when
// nothing is open there any more and nothing will be written (fsnotify_sb_delete). The watch does not keep it.
func watchEnd(fd int) (*end, error) {
	events, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		if _, err = unix.InotifyAddWatch(events, sys.ProcPath(fd, ""), unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
			unix.Close(events)
		}
	}
	switch err {
	case nil:
	case unix.EMFILE, unix.ENOSPC:
		return nil, errors.New("too many inotify instances or watches: raise fs.inotify.max_user_instances or max_user_watches (sysctl)")
	default:
		return nil, fmt.Errorf("watch the overlay: %w", err)
	}
	e := &end{closed: make(chan struct{}), events: os.NewFile(uintptr(events), "inotify")}
	go func() {
		defer close(e.closed)
		defer e.events.Close()
		buf := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)
		_, _ = e.events.Read(buf) // there is no other event than the one for the end
	}()
	return e, nil
}

// stop ends the watch.
func (e *end) stop() { e.events.Close() }
