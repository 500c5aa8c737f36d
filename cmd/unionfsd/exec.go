package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/wire"
	"github.com/unionfsd/unionfsd/ns"
)

func (a *app) execCommand() *cobra.Command {
	var f programFlags
	cmd := &cobra.Command{
		Use:     "exec [-t] [-e NAME=VALUE] [-w DIR] [-u USER] NAME COMMAND [ARG...]",
		GroupID: groupContainers,
		Short:   "run another program in a running container",
		Long: `Run COMMAND in the container NAME, confined as its own program is. It ends with the container, and with this command.

Exits as run does.`,
		Example: `  unionfsd exec -t web bash
  unionfsd exec -u www-data web id`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := a.exec(cmd.Context(), f, args[0], args[1:])
			if err != nil {
				err = fmt.Errorf("exec %s: %w", args[1], err)
			}
			if code != 0 {
				return &exitError{code: code, err: err}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.SetInterspersed(false) // what follows COMMAND is the program's
	f.add(flags)
	return cmd
}

// exec runs a program in a container and returns its exit code.
func (a *app) exec(ctx context.Context, f programFlags, name string, argv []string) (int, error) {
	p, err := f.program(argv)
	if err != nil {
		return exitSelf, err
	}
	p.Env = append(ns.DefaultEnv(name, os.Getenv("TERM")), p.Env...)
	var stdio []*os.File
	if p.Terminal {
		if err := needTerminal(); err != nil {
			return exitSelf, err
		}
	} else {
		stdio = []*os.File{os.Stdin, os.Stdout, os.Stderr}
	}
	c, err := a.dialContainer(ctx, name)
	if err != nil {
		return exitSelf, err
	}
	defer c.Close()
	if err := c.Send(controlRequest{Exec: &p}, stdio...); err != nil {
		return exitSelf, fmt.Errorf("ask the supervisor: %w", err)
	}
	var reply controlReply
	if err := c.Receive(&reply); err != nil {
		return exitSelf, fmt.Errorf("the supervisor ended: %w", err)
	}
	if reply.Failure != "" {
		return reply.Code, errors.New(reply.Failure)
	}
	if files := c.Files(); len(files) == 1 {
		defer relay(files[0])()
	}
	defer forwardTo(c)()
	if err := c.Receive(&reply); err != nil || reply.Exited == nil {
		return exitSelf, errors.New("the container ended")
	}
	return *reply.Exited, nil
}

// forwardTo passes the signals that this process gets on to the program on the other end of c.
func forwardTo(c *wire.Conn) (stop func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			_ = c.Send(controlRequest{Signal: s.(syscall.Signal)})
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}
