package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
)

// job is one union to be mounted: all that the process needs to know that does it. Paths are absolute.
type job struct {
	Backend    string
	Spec       layer.Spec
	Target     string
	StateRoot  string
	MustRecord bool // a union that cannot be recorded is not mounted; else that is a warning
	Stay       bool // until it is unmounted, even if nobody in this process serves it
	Measuring  measuring
}

// serve mounts the union, calls live when it is there, and returns when it is not any more, or need not be served
// by this process. A signal unmounts it. If live fails, the union is unmounted at once.
func (j job) serve(ctx context.Context, signals <-chan os.Signal, live func(warning error) error) error {
	raiseDescriptors()
	unix.Umask(0) // modes are what requests say
	// No directory may be held busy by us.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	root, err := state.At(j.StateRoot)
	if err != nil {
		return err
	}
	monitor, err := newMonitor(j)
	if err != nil {
		return err
	}
	defer monitor.close()
	view, err := monitor.observed(backends[j.Backend]).Open(ctx, j.Spec)
	if err != nil {
		return err
	}
	defer view.Close()
	if err := view.Attach(j.Target); err != nil {
		return err
	}
	record, warning := root.AddMount(j.record(view, monitor))
	if record.PID != 0 && warning == nil {
		warning = monitor.start(record, view.Served())
	}
	if warning != nil && j.MustRecord {
		return errors.Join(warning, unmount(j.Target, unix.MNT_DETACH), root.DropMount(record))
	}
	if err := live(warning); err != nil {
		return errors.Join(err, unmount(j.Target, unix.MNT_DETACH), root.DropMount(record))
	}
	if !view.Served() && !j.Stay {
		return nil
	}
	err = j.wait(view, record, signals)
	return errors.Join(err, root.DropMount(record))
}

func (j job) record(view mount.View, monitor *monitor) state.Mount {
	m := state.Mount{Mountpoint: state.Text(j.Target), Backend: j.Backend, Spec: state.Text(j.Spec.String()), Metrics: monitor.address()}
	if view.Served() || j.Stay {
		m.PID = os.Getpid()
	}
	return m
}

// wait returns when the union is unmounted. The first signal unmounts it, also under those who use it, and then the
// wait is for the last of them; a second one does not wait.
func (j job) wait(view mount.View, record state.Mount, signals <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- view.Wait() }()
	for asked := false; ; asked = true {
		select {
		case err := <-ended:
			return err
		case <-signals:
			if asked || !onTop(record) {
				return nil
			}
			if err := unmount(j.Target, 0); errors.Is(err, unix.EBUSY) {
				err = unmount(j.Target, unix.MNT_DETACH)
				if err != nil {
					return err
				}
			}
		}
	}
}

// onTop reports whether to unmount what is at the mount point would unmount this union, and not one that covers it.
func onTop(record state.Mount) bool {
	entries, err := mountinfo.Read()
	if err != nil {
		return false
	}
	top, ok := mountinfo.Top(entries, string(record.Mountpoint))
	return ok && top.Dev == record.Dev
}

// unmount removes the mount at target. It does not follow a symlink that took the place of a mount point.
func unmount(target string, flags int) error {
	if err := unix.Unmount(target, flags|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %q: %w", target, err)
	}
	return nil
}
