package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/metrics"
)

func (a *app) topCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:     "top [--once] [--interval TIME] [MOUNTPOINT]",
		GroupID: groupMeasure,
		Short:   "watch what unions do",
		Long: `Show what the union at MOUNTPOINT does: requests a second and how long they take, data, lookups, copy-ups. Without a
MOUNTPOINT, one line for each union that unionfsd serves, or the one there is. Ends with ^C.

P50 and P99 are the times within which half and 99 % of the requests were answered; they are interpolated. A request
has failed if it was answered with an error other than that there is no such file or attribute.`,
		Example: `  unionfsd top merged
  unionfsd top --once merged`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeWith(mountPoints),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < 100*time.Millisecond {
				return usagef("--interval %v; the shortest is 100ms", interval)
			}
			t, err := a.newTop(args)
			if err == nil {
				err = t.run(cmd.Context(), interval, once)
			}
			if err != nil {
				return fmt.Errorf("top: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one frame and end")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "`TIME` between frames")
	return cmd
}

// top shows a union, or several, again and again.
type top struct {
	out    io.Writer
	root   state.Root
	target string // the directory that the union is mounted on; empty for all
	before map[state.Text]metrics.Counts
}

// sample is one union between two frames.
type sample struct {
	union state.Mount
	now   metrics.Counts
	rates metrics.Rates
}

func (a *app) newTop(args []string) (*top, error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	t := &top{out: a.stdout, root: root, before: map[state.Text]metrics.Counts{}}
	if len(args) > 0 {
		t.target = args[0]
	}
	return t, nil
}

// run shows frames until it is interrupted.
func (t *top) run(ctx context.Context, interval time.Duration, once bool) error {
	terminal, ok := t.out.(*os.File)
	if !once && !(ok && isTerminal(terminal)) {
		return usagef("stdout is not a terminal; pass --once")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if _, err := t.samples(ctx); err != nil {
		return err
	}
	if !once {
		const otherScreen, hideCursor, back = "\x1b[?1049h", "\x1b[?25l", "\x1b[?25h\x1b[?1049l"
		io.WriteString(t.out, otherScreen+hideCursor)
		defer io.WriteString(t.out, back)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		samples, err := t.samples(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		text := frame(samples)
		if once {
			_, err := io.WriteString(t.out, text)
			return err
		}
		if err := draw(terminal, text); err != nil {
			return err
		}
	}
}

// samples asks every union that is to be shown.
func (t *top) samples(ctx context.Context) ([]sample, error) {
	unions, err := t.unions()
	if err != nil {
		return nil, err
	}
	var samples []sample
	for _, u := range unions {
		f, err := familiesOf(ctx, u)
		if err != nil {
			if t.target == "" {
				continue // it may have been unmounted since it was listed
			}
			return nil, err
		}
		now := metrics.CountsOf(f, time.Now())
		samples = append(samples, sample{u, now, now.Since(t.before[u.Mountpoint])})
		t.before[u.Mountpoint] = now
	}
	if len(samples) == 0 {
		return nil, errors.New("no union is served by unionfsd; unionfsd mounts lists those of the kernel")
	}
	return samples, nil
}

func (t *top) unions() ([]state.Mount, error) {
	if t.target != "" {
		u, err := oneUnion(t.root, t.target)
		if err == nil && u.Backend == "kernel" {
			err = errors.New("the kernel serves it and does not count; see unionfsd metrics for what is known")
		}
		return []state.Mount{u}, err
	}
	all, err := visibleUnions(t.root)
	if err != nil {
		return nil, err
	}
	var served []state.Mount
	for _, u := range all {
		if u.Backend != "kernel" {
			served = append(served, u)
		}
	}
	return served, nil
}
