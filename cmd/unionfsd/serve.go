package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
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
	Takeover   *takeover // of the union at Target, which is mounted; nil to mount one
}

// serve mounts the union, calls report when it is there, and returns when it is not any more, or need not be served
// by this process. A signal unmounts it. If report fails, the union is unmounted at once.
//
// If the job is a takeover, the union is mounted already and stays, whatever happens to who asked.
func (j job) serve(ctx context.Context, signals <-chan os.Signal, report func(warning error) error) error {
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
	u := &live{job: j, root: root, monitor: monitor}
	defer u.close()
	if j.Takeover != nil {
		reply := u.takeOver(ctx)
		if u.view == nil {
			return reply.report()
		}
		_ = report(reply.report())
	} else if err := u.mount(ctx, report); err != nil {
		return err
	}
	return u.serve(ctx, signals)
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
