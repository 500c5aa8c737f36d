package main

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/metrics"
)

// live is a union that this process has mounted. Its backend may be switched while it is.
type live struct {
	job     job // Backend is what serves it now
	root    state.Root
	monitor *monitor
	view    mount.View
	record  state.Mount
	old     []*ending // what it was before; see switchTo
}

// ending is a view that is not mounted any more, and has users left.
type ending struct {
	view mount.View
	done chan struct{} // closed when the last one has gone
}

// mount mounts the union, records it, and reports.
func (u *live) mount(ctx context.Context, report func(warning error) error) error {
	j := u.job
	view, err := u.monitor.observed(backends[j.Backend]).Open(ctx, j.Spec)
	if err != nil {
		return err
	}
	u.view = view
	if err := view.Attach(j.Target); err != nil {
		return err
	}
	warning := u.announce()
	if warning != nil && j.MustRecord {
		return errors.Join(warning, unmount(j.Target, unix.MNT_DETACH), u.root.DropMount(u.record))
	}
	if err := report(warning); err != nil {
		return errors.Join(err, unmount(j.Target, unix.MNT_DETACH), u.root.DropMount(u.record))
	}
	return nil
}

// announce records what is mounted now, and begins to answer on its control socket.
func (u *live) announce() error {
	m := state.Mount{
		Mountpoint: state.Text(u.job.Target),
		Backend:    u.job.Backend,
		Spec:       state.Text(u.job.Spec.String()),
		Metrics:    u.monitor.address(),
	}
	if served, ok := u.view.(interface{ Transport() string }); ok {
		m.Transport = served.Transport()
	}
	if u.stays() {
		m.PID = os.Getpid()
	}
	var err error
	u.record, err = u.root.AddMount(m)
	if err == nil && m.PID != 0 {
		err = u.monitor.start(u.record, u.view.Served())
	}
	return err
}

// stays reports whether this process goes on as long as the union is mounted: to serve it, because it was told to, or to
// tell of it where somebody asks for metrics.
func (u *live) stays() bool {
	return u.view.Served() || u.job.Stay || u.job.Measuring.Listen != (metrics.Address{})
}

// serve returns when the union is unmounted, or when the kernel serves it and nobody is left in what it was before. The
// first signal unmounts it, also under those who use it, and then the wait is for the last of them; a second one does
// not wait.
func (u *live) serve(ctx context.Context, signals <-chan os.Signal) error {
	ended := waitFor(u.view)
	for asked := false; u.stays(); {
		select {
		case err := <-ended:
			return errors.Join(err, u.root.DropMount(u.record))
		case ask := <-u.monitor.asked:
			before := u.view
			ask.reply <- u.switchTo(ctx, ask.switchRequest)
			if u.view != before {
				ended = waitFor(u.view)
			}
		case <-signals:
			if asked || !onTop(u.record) {
				return u.root.DropMount(u.record)
			}
			asked = true
			if err := unmount(u.job.Target, 0); errors.Is(err, unix.EBUSY) {
				if err := unmount(u.job.Target, unix.MNT_DETACH); err != nil {
					return errors.Join(err, u.root.DropMount(u.record))
				}
			}
		}
	}
	for _, old := range u.old {
		select {
		case <-old.done:
		case <-signals:
			return nil // cuts off who is left
		}
	}
	return nil
}

func waitFor(view mount.View) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- view.Wait() }()
	return ended
}

func (u *live) close() {
	u.monitor.close()
	for _, old := range u.old {
		old.view.Close()
	}
	if u.view != nil {
		u.view.Close()
	}
}

// switchTo changes the backend of the union.
func (u *live) switchTo(ctx context.Context, r switchRequest) switchReply {
	old := u.view
	record := u.record
	reply := u.run(ctx, r, mount.Switch{Dev: mountinfo.Entry{Dev: record.Dev}.Device(), Old: old})
	if u.view == old {
		return reply
	}
	if r.Force {
		reply.fail(old.Close())
	}
	e := &ending{view: old, done: make(chan struct{})}
	go func() {
		old.Wait()
		old.Close()
		close(e.done)
	}()
	u.old = append(u.old, e)
	reply.fail(u.announce())
	reply.fail(u.root.DropMount(record))
	return reply
}

// takeOver is switchTo for a union that no process serves.
func (u *live) takeOver(ctx context.Context) switchReply {
	t := u.job.Takeover
	record, found, err := findUnion(u.root, u.job.Target)
	if err == nil && (!found || record.Dev != t.Dev) {
		err = errors.New("another mount is there by now; try again")
	}
	if err != nil {
		return switchReply{Failure: err.Error()}
	}
	reply := u.run(ctx, t.Request, mount.Switch{Dev: mountinfo.Entry{Dev: t.Dev}.Device()})
	if u.view == nil {
		return reply
	}
	reply.fail(u.announce())
	reply.fail(u.root.DropMount(record))
	return reply
}

// run makes the switch. It changes u.view if there is a new one, which there may be also after an error.
func (u *live) run(ctx context.Context, r switchRequest, s mount.Switch) switchReply {
	s.Target, s.Spec, s.Lazy = u.job.Target, u.job.Spec, r.Lazy
	s.Backend = u.monitor.observed(backends[r.To]).(mount.Successor)
	var reply switchReply
	done, err := s.Run(ctx)
	reply.fail(err)
	if held, ok := errors.AsType[*mount.HeldError](err); ok {
		reply.Holders = held.Holders
	}
	if done != nil {
		u.view, u.job.Backend = done.View, r.To
		reply.Left, reply.Waited = done.Left, done.Took
	}
	return reply
}
