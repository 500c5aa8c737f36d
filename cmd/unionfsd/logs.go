package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/state"
)

func (a *app) logsCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:     "logs [-f] [-n COUNT] [-t] NAME",
		GroupID: groupContainers,
		Short:   "print what a detached container has written",
		Long: `Print what the programs of a container that was started with -d have written, each stream to its own. The last 16 MiB
are kept, and at most as much of what was before.`,
		Example: `  unionfsd logs -f web
  unionfsd logs -n 20 -t web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.logs(cmd.Context(), f, args[0]); err != nil {
				return fmt.Errorf("logs %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on until the container ends")
	cmd.Flags().IntVarP(&f.tail, "tail", "n", -1, "only the last `COUNT` lines of what there is")
	cmd.Flags().BoolVarP(&f.timestamps, "timestamps", "t", false, "begin each line with when it was written")
	return cmd
}

type logFlags struct {
	follow, timestamps bool
	tail               int
}

func (a *app) logs(ctx context.Context, f logFlags, name string) error {
	root, err := a.state()
	if err != nil {
		return err
	}
	c, err := root.Container(name)
	if err != nil {
		return err
	}
	if !c.Detached {
		return errors.New("it wrote to where it was started from; only containers that are run with -d have a log")
	}
	var lines []logLine
	for _, path := range []string{root.LogFile(name) + ".1", root.LogFile(name)} {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer file.Close()
		in := bufio.NewReader(file)
		lines = append(lines, readLog(in)...)
		if path == root.LogFile(name) {
			if f.tail >= 0 && f.tail < len(lines) {
				lines = lines[len(lines)-f.tail:]
			}
			a.printLog(f, lines)
			if f.follow {
				return a.follow(ctx, f, root, name, file, in)
			}
			return nil
		}
	}
	a.printLog(f, lines)
	return nil
}

// readLog reads the lines that there are.
func readLog(in *bufio.Reader) []logLine {
	var lines []logLine
	for {
		text, err := in.ReadString('\n')
		if line, ok := parseLogLine(text); ok {
			lines = append(lines, line)
		}
		if err != nil {
			return lines
		}
	}
}

func (a *app) printLog(f logFlags, lines []logLine) {
	for _, line := range lines {
		out := a.stdout
		if line.from == streamErr {
			out = a.stderr
		}
		if f.timestamps {
			fmt.Fprint(out, line.when, " ")
		}
		io.WriteString(out, line.text)
		if line.whole {
			io.WriteString(out, "\n")
		}
	}
}

// follow prints what is added until the container ends. When the log is put aside it goes on with the next one.
func (a *app) follow(ctx context.Context, f logFlags, root state.Root, name string, file *os.File, in *bufio.Reader) error {
	for {
		c, err := root.Container(name) // before reading: what it wrote until its end is in the log then
		ended := err != nil || !c.Running
		a.printLog(f, readLog(in))
		if next, err := os.Open(root.LogFile(name)); err == nil {
			if sameFile(next, file) {
				next.Close()
			} else {
				a.printLog(f, readLog(in))
				defer next.Close()
				file, in = next, bufio.NewReader(next)
				continue
			}
		}
		if ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}
