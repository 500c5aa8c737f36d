package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/metrics"
)

// fetchTimeout bounds how long a process that serves a union may take to tell its metrics.
const fetchTimeout = 5 * time.Second

func (a *app) metricsCommand() *cobra.Command {
	var textfile string
	cmd := &cobra.Command{
		Use:     "metrics [--textfile FILE] [MOUNTPOINT]",
		GroupID: groupMeasure,
		Short:   "print the metrics of unions and containers",
		Long: `Print the metrics of the union at MOUNTPOINT, in the text format of Prometheus. Without a MOUNTPOINT, those of all
unions and of the containers, but not those of the processes that serve them.

A process that serves a union is asked on its control socket; of a union that the kernel serves, less is known.

For Prometheus to ask itself, mount with --metrics-listen. A textfile of everything has of such a union only whether
it is up, so that nothing is counted twice.`,
		Example: `  unionfsd metrics merged
  unionfsd metrics | grep unionfsd_upper_available_bytes
  unionfsd metrics --textfile /var/lib/prometheus/node-exporter/unionfsd.prom   # from a timer`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeWith(mountPoints),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.families(cmd.Context(), args, textfile != "")
			if err != nil {
				return err
			}
			if textfile != "" {
				return all.Own().WriteFile(textfile)
			}
			return all.WriteText(a.stdout)
		},
	}
	cmd.Flags().StringVar(&textfile, "textfile", "", "write to `FILE` instead, for the textfile collector of node_exporter")
	return cmd
}

// families are the metrics of the one union that the arguments name, or of everything but, if beside, what Prometheus
// asks for itself.
func (a *app) families(ctx context.Context, args []string, beside bool) (metrics.Families, error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return a.allFamilies(ctx, root, beside)
	}
	u, err := oneUnion(root, args[0])
	if err == nil {
		var f metrics.Families
		if f, err = familiesOf(ctx, u); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("metrics %s: %w", args[0], err)
}

// oneUnion is the union that is mounted on the directory arg.
func oneUnion(root state.Root, arg string) (state.Mount, error) {
	u, ok, err := findUnion(root, arg)
	if err == nil && !ok {
		err = notUnion(arg)
	}
	return u, err
}

// allFamilies are the metrics of all unions and containers; see families. What cannot be asked is told as down.
func (a *app) allFamilies(ctx context.Context, root state.Root, beside bool) (metrics.Families, error) {
	unions, err := visibleUnions(root)
	if err != nil {
		return nil, err
	}
	own := metrics.NewRegistry()
	var parts []metrics.Families
	for _, u := range unions {
		f, err := familiesOf(ctx, u)
		switch {
		case errors.Is(err, state.ErrNoControl): // of another state root
			if f, err = knownFamilies(u); err != nil {
				return nil, err
			}
		case err != nil:
			a.complain(fmt.Errorf("metrics %s: %w", u.Mountpoint, err))
			own.AddUp(string(u.Mountpoint), false)
		default:
			own.AddUp(string(u.Mountpoint), true)
		}
		if !beside || u.Metrics == "" {
			parts = append(parts, f.Own())
		}
	}
	containers, err := containerMetrics(root)
	if err != nil {
		return nil, err
	}
	own.AddContainers(containers)
	rest, err := own.Gather()
	if err != nil {
		return nil, err
	}
	return metrics.Merge(append(parts, rest)...)
}

// visibleUnions are the unions that are not covered by another one on the same mount point.
func visibleUnions(root state.Root) ([]state.Mount, error) {
	all, err := root.Mounts()
	if err != nil {
		return nil, err
	}
	top := map[state.Text]int{}
	for i, u := range all {
		top[u.Mountpoint] = i
	}
	var unions []state.Mount
	for i, u := range all {
		if top[u.Mountpoint] == i {
			unions = append(unions, u)
		}
	}
	return unions, nil
}

// familiesOf are the metrics of one union: from the process that serves it, or what is known of one that the kernel
// serves.
func familiesOf(ctx context.Context, u state.Mount) (metrics.Families, error) {
	if u.Backend == "kernel" {
		return knownFamilies(u)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	f, err := metrics.Fetch(ctx, u.DialControl)
	switch {
	case errors.Is(err, state.ErrNoControl):
		return nil, fmt.Errorf("%w: its record is not in this state root; pass the --root that it was mounted with", err)
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("what served it is gone; unmount it: unionfsd umount %s", shell(string(u.Mountpoint)))
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("process %d, which serves it, does not answer within %v", u.PID, fetchTimeout)
	}
	return f, err
}

// knownFamilies are what is known of a union without asking who serves it.
func knownFamilies(u state.Mount) (metrics.Families, error) {
	spec, err := specOf(u)
	if err != nil {
		return nil, err
	}
	upper := openUpper(spec.Upper)
	if upper >= 0 {
		defer unix.Close(upper)
	}
	r := metrics.NewRegistry()
	r.AddMount(string(u.Mountpoint), metrics.Mount{Backend: u.Backend, Layers: layerCount(spec), Since: u.Since, Upper: upper})
	return r.Gather()
}

// layerCount is the number of layers of a union, with the upper one; 0 if it is not known.
func layerCount(spec layer.Spec) int {
	n := len(spec.Lower) + len(spec.Data)
	if spec.Upper != "" {
		n++
	}
	return n
}

func containerMetrics(root state.Root) (metrics.Containers, error) {
	list, err := root.Containers()
	if err != nil {
		return metrics.Containers{}, err
	}
	tally, err := root.Tally()
	if err != nil {
		return metrics.Containers{}, err
	}
	states := map[string]int{"running": 0, "exited": 0, "died": 0}
	for _, c := range list {
		switch {
		case c.Running:
			states["running"]++
		case c.ExitCode != nil:
			states["exited"]++
		default:
			states["died"]++
		}
	}
	return metrics.Containers{
		States: states, Exits: tally.Exits,
		Starts: tally.Starts, StartSeconds: tally.StartSeconds,
		StartsWithin: tally.StartsWithin[:], Bounds: state.StartBounds[:],
	}, nil
}

// measuringFlags are how a union is to be measured, as the mount command takes it.
type measuringFlags struct {
	off       bool
	listen    string
	profiling bool
}

func (f *measuringFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "metrics-listen", "", "serve metrics over HTTP on `ADDR`: HOST:PORT, or unix:PATH")
	flags.BoolVar(&f.profiling, "metrics-pprof", false, "serve Go profiles of the daemon there, too")
	flags.BoolVar(&f.off, "no-metrics", false, "count nothing")
}

func (f *measuringFlags) measuring() (measuring, error) {
	m := measuring{Off: f.off, Profiling: f.profiling}
	switch {
	case f.listen == "" && f.profiling:
		return m, usagef("--metrics-pprof without an address; pass --metrics-listen 127.0.0.1:9737")
	case f.listen == "":
		return m, nil
	case f.off:
		return m, usagef("both --metrics-listen and --no-metrics; drop one")
	}
	var err error
	if m.Listen, err = metrics.ParseAddress(f.listen); err != nil {
		return m, usagef("--metrics-listen: %w", err)
	}
	return m, nil
}

// counted tells, if asked to say everything, why something is missing in the metrics. Nothing else fails for that.
func (a *app) counted(err error) {
	if err != nil {
		a.verbosef("not counted: %v", err)
	}
}
