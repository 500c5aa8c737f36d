package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/state"
)

func (a *app) killCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:               "kill [-s SIGNAL] NAME...",
		GroupID:           groupContainers,
		Short:             "send a signal to the programs of containers",
		Long:              `Send a signal to the program of each container; KILL, the default, ends the container at once.`,
		Example:           `  unionfsd kill -s HUP web`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := parseSignal(name)
			if err != nil {
				return err
			}
			return a.each(args, "kill", func(name string) error {
				return a.askContainer(cmd.Context(), name, controlRequest{Signal: s})
			})
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "`SIGNAL`, a name or a number")
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	patience := 10
	cmd := &cobra.Command{
		Use:     "stop [-t SECONDS] NAME...",
		GroupID: groupContainers,
		Short:   "ask containers to end, and end them",
		Long: `Send the stop signal, TERM by default, to the program of each container, and KILL if it has not ended after some
seconds. Returns when it has ended, and all that belonged to it is gone.`,
		Example:           `  unionfsd stop web`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, "stop", func(name string) error {
				return a.stop(cmd.Context(), name, time.Duration(patience)*time.Second)
			})
		},
	}
	cmd.Flags().IntVarP(&patience, "time", "t", patience, "`SECONDS` to wait before KILL")
	return cmd
}

// stop ends a container. One that has ended already is no error.
func (a *app) stop(ctx context.Context, name string, patience time.Duration) error {
	root, err := a.state()
	if err != nil {
		return err
	}
	c, err := root.Container(name)
	if err != nil || !c.Running {
		return err
	}
	if c.PID == 0 { // nobody answers yet
		return killContainer(ctx, root, name)
	}
	s := syscall.SIGTERM
	if c.StopSignal != 0 {
		s = syscall.Signal(c.StopSignal)
	}
	if err := a.askContainer(ctx, name, controlRequest{Signal: s}); err != nil && !errors.Is(err, state.ErrNotRunning) {
		return err
	}
	if c.Paused { // it gets the signal when it goes on
		if err := a.askContainer(ctx, name, controlRequest{Thaw: true}); err != nil && !errors.Is(err, state.ErrNotRunning) {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := root.AwaitEnd(wait, name); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := a.askContainer(ctx, name, controlRequest{Signal: syscall.SIGKILL}); err != nil && !errors.Is(err, state.ErrNotRunning) {
		return err
	}
	return root.AwaitEnd(ctx, name)
}

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "wait NAME...",
		GroupID:           groupContainers,
		Short:             "wait for containers to end, and print their exit codes",
		Example:           `  unionfsd wait web`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := a.state()
			if err != nil {
				return err
			}
			return a.each(args, "wait", func(name string) error {
				if _, err := root.Container(name); err != nil {
					return err
				}
				if err := root.AwaitEnd(cmd.Context(), name); err != nil {
					return err
				}
				c, err := root.Container(name)
				if err != nil {
					return err
				}
				if c.ExitCode == nil {
					return errors.New("its supervisor was killed, so its exit code is not known")
				}
				fmt.Fprintln(a.stdout, *c.ExitCode)
				return nil
			})
		},
	}
}

func (a *app) pauseCommand() *cobra.Command {
	return a.freezer("pause", "stop all programs of containers where they are", controlRequest{Freeze: true},
		`Stop every program of each container with SIGSTOP. Parents see that their children stop, as by job control.`)
}

func (a *app) unpauseCommand() *cobra.Command {
	return a.freezer("unpause", "let the programs of paused containers go on", controlRequest{Thaw: true}, "")
}

func (a *app) freezer(verb, short string, r controlRequest, long string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NAME...",
		GroupID:           groupContainers,
		Short:             short,
		Long:              long,
		Example:           "  unionfsd " + verb + " web",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, verb, func(name string) error { return a.askContainer(cmd.Context(), name, r) })
		},
	}
}

func (a *app) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [-f] NAME...",
		GroupID:           groupContainers,
		Short:             "remove containers and what they wrote",
		Example:           `  unionfsd rm web`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if done, err := a.asRoot(); done {
				return err
			}
			root, err := a.state()
			if err != nil {
				return err
			}
			return a.each(args, "rm", func(name string) error {
				if force {
					if err := killContainer(cmd.Context(), root, name); err != nil {
						return err
					}
				}
				if c, err := root.Container(name); err == nil && !c.Running {
					if err := removeLeft(c); err != nil {
						return err
					}
				}
				err := root.RemoveContainer(name)
				if force && errors.Is(err, state.ErrNoContainer) {
					return nil // it removed itself, or there was none: either way it is not there
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill what runs first; what is not there is no error")
	return cmd
}

// killContainer kills the supervisor of a container, with which all of it ends, and waits for that. It needs nothing of
// the container to work.
//
// One that is starting is asked first: it may be the only one that holds the union that it serves, and the kernel may
// not let go of such a process (transport/doc.go).
func killContainer(ctx context.Context, root state.Root, name string) error {
	const politely, surely = 2 * time.Second, 10 * time.Second
	c, err := root.Container(name)
	if err == nil && c.Running && c.PID == 0 {
		if err := endSupervisor(ctx, root, c, unix.SIGTERM, politely); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		c, err = root.Container(name)
	}
	if errors.Is(err, state.ErrNoContainer) || err == nil && !c.Running {
		return nil
	}
	if err != nil {
		return err
	}
	return endSupervisor(ctx, root, c, unix.SIGKILL, surely)
}

// endSupervisor sends a signal to the supervisor of c, and waits for its end and that of the container.
func endSupervisor(ctx context.Context, root state.Root, c state.Container, s unix.Signal, patience time.Duration) error {
	init := -1 // it ends a moment after the supervisor
	if c.PID != 0 {
		if fd, err := unix.PidfdOpen(c.PID, 0); err == nil {
			init = fd
			defer unix.Close(fd)
		}
	}
	if process, ok := c.OpenSupervisor(); ok {
		defer process.Close()
		err := unix.PidfdSendSignal(int(process.Fd()), s, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end its supervisor: %w", os.NewSyscallError("pidfd_send_signal", err))
		}
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := root.AwaitEnd(wait, c.Name)
	if err == nil && init >= 0 {
		err = awaitProcess(wait, init)
	}
	if err != nil {
		return fmt.Errorf("its supervisor does not end: %w", err)
	}
	return nil
}

// awaitProcess returns when the process of a pidfd has ended.
func awaitProcess(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10)
		if n > 0 || err != nil && err != unix.EINTR {
			return err
		}
	}
	return ctx.Err()
}
