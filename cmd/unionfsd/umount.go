package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
)

// serverTimeout is how long umount waits for the process that served a union. It has nothing left to do but to end.
const serverTimeout = 10 * time.Second

func (a *app) umountCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount [--lazy] MOUNTPOINT...",
		Aliases: []string{"unmount"},
		GroupID: groupUnions,
		Short:   "unmount unions",
		Long: `Unmount the unions at each MOUNTPOINT, also where what served one is gone. Returns when nothing holds the layers any
more, so that what they lie on can be unmounted next.`,
		Example: `  unionfsd umount merged
  unionfsd umount --lazy merged     # also while it is used: it disappears now, and ends with its last user`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(mountPoints),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := a.state()
			if err != nil {
				return err
			}
			return a.each(args, "umount", func(arg string) error { return a.umount(root, arg, lazy) })
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "unmount also while it is used")
	return cmd
}

// each calls do for every argument, also after one has failed, and tells each failure in a line of its own.
func (a *app) each(args []string, verb string, do func(arg string) error) error {
	var failed error
	for _, arg := range args {
		if err := do(arg); err != nil {
			a.complain(fmt.Errorf("%s %s: %w", verb, arg, err))
			failed = &exitError{code: exitFailed}
		}
	}
	return failed
}

func (a *app) umount(root state.Root, arg string, lazy bool) error {
	u, ok, err := findUnion(root, arg)
	if err != nil {
		return err
	}
	if !ok {
		return notUnion(arg)
	}
	server, served := u.Server()
	if served {
		defer server.Close()
	}
	flags := 0
	if lazy {
		flags = unix.MNT_DETACH
	}
	switch err := unmount(string(u.Mountpoint), flags); {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("it is in use; stop who uses it (fuser -vm %s), or pass --lazy", shell(arg))
	case errors.Is(err, unix.EPERM):
		return errors.New("not permitted; run as root, or in the user namespace that mounted it")
	case err != nil:
		return err
	}
	if err := root.DropMount(u); err != nil || !served || lazy {
		return err
	}
	spec, err := specOf(u)
	copying := func() bool {
		return err == nil && layer.LazyLeft(spec.Work) && spec.Options.FUSE.Lazy != layer.LazyKeep
	}
	return a.waitServer(server, u.PID, copying)
}

// notUnion is the error for a path that no union is mounted on.
func notUnion(arg string) error {
	top, ok, err := topMount(arg)
	switch {
	case err != nil:
		return err
	case ok:
		return fmt.Errorf("not a union but %s; use umount(8)", top.FSType)
	}
	if _, err := os.Lstat(arg); err != nil {
		return errors.New("no such directory; unionfsd mounts lists the unions")
	}
	return errors.New("not a mount point; unionfsd mounts lists the unions")
}

// waitServer waits until the process behind the pidfd server has ended, and with it its descriptors in the layers. As
// long as it is copying what was copied up lazily it may take its time, and the user is told.
func (a *app) waitServer(server *os.File, pid int, copying func() bool) error {
	for told := false; ; {
		ended, err := endedWithin(server, serverTimeout)
		switch {
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		case ended:
			return nil
		case !copying():
			return fmt.Errorf("unmounted, but process %d that served it is still there after %v; end it: kill %d", pid, serverTimeout, pid)
		case !told:
			told = true
			a.complain(errors.New("unmounted; waiting until the data of large files that were written are copied up"))
		}
	}
}

// endedWithin waits for the end of the process behind a pidfd.
func endedWithin(process *os.File, limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		fds := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(left, 0).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, err
		case n > 0 || left <= 0:
			return n > 0, nil
		}
	}
}
