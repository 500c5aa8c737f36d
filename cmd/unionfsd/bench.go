package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/bench"
	"github.com/unionfsd/unionfsd/bench/workload"
)

// benchFlags are those of bench.
type benchFlags struct {
	backends, workloads, regimes []string
	runs                         int
	scale                        float64
	dir, tree, out               string
	textfile, results            string
	count, list                  bool
	timeout                      time.Duration
}

func (a *app) benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "bench [--backends LIST] [--workloads LIST] [--regimes LIST] [--runs N] [--out DIR]",
		GroupID: groupMeasure,
		Short:   "measure the same work on every backend",
		Long: `Do the same work on unionfsd's backends, on the bare directory ("native") and on other union file systems that are
installed, in turn, and report medians, ratios to the kernel's overlayfs, CPU time, memory and requests.

What a FUSE request costs depends on who runs on which CPU, so there are two regimes: "pinned" has client and server
on one CPU and can be repeated within some percent; "free" leaves them to the scheduler.`,
		Example: `  unionfsd bench --workloads metadata,create --runs 3      # two groups
  unionfsd bench --out results                             # all of it, with JSON and an HTML report
  unionfsd bench --backends fuse,fuse                      # how much of a difference is noise
  unionfsd bench --backends kernel,fuse,old=fuse@/tmp/unionfsd-old
  unionfsd bench compare old/report.json new/report.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.list {
				return a.listWorkloads()
			}
			return a.bench(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&f.backends, "backends", nil, "`LIST` of fuse, kernel, native, fuse-overlayfs, mergerfs, unionfs-fuse (default all that are there); LABEL=fuse@PROGRAM ARGUMENT... is another unionfsd, or other arguments of its mount command")
	flags.StringSliceVar(&f.workloads, "workloads", nil, "`LIST` of groups, workloads or rows (default all)")
	flags.StringSliceVar(&f.regimes, "regimes", []string{string(bench.Pinned), string(bench.Free)}, "`LIST` of pinned, free")
	flags.IntVar(&f.runs, "runs", 0, "`N` rounds in each regime (default 5 pinned, 7 free)")
	flags.Float64Var(&f.scale, "scale", 1, "`SIZE` of the work; less than 1 only to see that everything works")
	flags.StringVar(&f.dir, "dir", "/var/tmp", "`DIR` on the file system to measure on; a directory is made in it, and removed")
	flags.StringVar(&f.tree, "tree", "", "large source tree in `DIR` to work with (default that of Go)")
	flags.StringVar(&f.out, "out", "", "write report.json and report.html to `DIR`")
	flags.StringVar(&f.textfile, "textfile", "", "write a `FILE` for the textfile collector of node_exporter")
	flags.StringVar(&f.results, "results", "", "put the tables into this Markdown `FILE`, in place of those that are there")
	flags.BoolVar(&f.count, "count", true, "count requests and system calls, in one more round")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "give up on a step after this `TIME`")
	flags.BoolVar(&f.list, "list", false, "list the workloads and what they stand for")
	cmd.AddCommand(a.benchCompareCommand())
	return cmd
}

func (a *app) listWorkloads() error {
	for _, w := range workload.All() {
		fmt.Fprintf(a.stdout, "%-9s %-18s %s\n", w.Group, w.Name, w.Doc)
	}
	return nil
}

func (a *app) bench(ctx context.Context, f benchFlags) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if f.out != "" {
		if err := os.MkdirAll(f.out, 0o755); err != nil {
			return err
		}
	}
	// The first signal ends it, and what it has started; the second one ends it without that.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	progress, finish := a.benchProgress()
	cfg.Progress = progress
	report, err := bench.Run(ctx, cfg)
	finish()
	if report != nil { // also when it was interrupted
		err = errors.Join(err, report.WriteTable(a.stdout), f.write(report), report.Err())
	}
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// config turns flags into what to measure.
func (f benchFlags) config() (bench.Config, error) {
	cfg := bench.Config{Runs: f.runs, Scale: workload.Scale(f.scale), Dir: f.dir, Tree: f.tree, Count: f.count, Timeout: f.timeout}
	if f.runs < 0 || f.scale <= 0 || f.scale > 1 {
		return cfg, usagef("bench: --runs is at least 0, and --scale more than 0 and at most 1")
	}
	self, err := os.Executable()
	if err != nil {
		return cfg, err
	}
	cfg.Program = self
	if f.backends == nil {
		cfg.Servers, err = bench.DefaultServers(self)
	} else {
		cfg.Servers, err = bench.ParseServers(strings.Join(f.backends, ","), self)
	}
	if err != nil {
		return cfg, usagef("bench: %w", err)
	}
	if cfg.Workloads, err = workload.Select(f.workloads); err != nil {
		return cfg, usagef("bench: %w", err)
	}
	for _, name := range f.regimes {
		regime := bench.Regime(name)
		if regime != bench.Pinned && regime != bench.Free {
			return cfg, usagef("bench: unknown regime %q; it is pinned or free", name)
		}
		cfg.Regimes = append(cfg.Regimes, regime)
	}
	if cfg.Tree == "" {
		cfg.Tree = goRoot()
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// goRoot is where Go's source is, or nothing.
func goRoot() string {
	for _, program := range []string{"go", "/usr/local/go/bin/go"} {
		if out, err := exec.Command(program, "env", "GOROOT").Output(); err == nil {
			return strings.TrimSpace(string(out))
		}
	}
	return ""
}

// write puts the report wherever it was asked for.
func (f benchFlags) write(report *bench.Report) error {
	var errs []error
	if f.out != "" {
		errs = append(errs, report.Save(filepath.Join(f.out, "report.json")), writeHTML(report, filepath.Join(f.out, "report.html")))
	}
	if f.textfile != "" {
		errs = append(errs, report.WriteTextfile(f.textfile))
	}
	if f.results != "" {
		errs = append(errs, report.WriteResults(f.results))
	}
	return errors.Join(errs...)
}

func writeHTML(report *bench.Report, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteHTML(f), f.Close())
}

func (a *app) benchCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "show what differs between two reports",
		Long: `Show for each workload what two reports of bench --out have found, as ratios to the reference where both have them. A
change counts as better or worse if it is more than the rounds scatter.`,
		Args: a.checked(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			old, err := bench.Load(args[0])
			if err != nil {
				return fmt.Errorf("bench compare: %w", err)
			}
			new, err := bench.Load(args[1])
			if err != nil {
				return fmt.Errorf("bench compare: %w", err)
			}
			if err := bench.WriteComparison(a.stdout, old, new); err != nil {
				return fmt.Errorf("bench compare: %w", err)
			}
			return nil
		},
	}
}

// benchProgress shows a bar on a terminal, and nothing elsewhere.
func (a *app) benchProgress() (progress func(done, total int, next string), finish func()) {
	bar := newBar(a.stderr, progressbar.OptionSetDescription("preparing"))
	if bar == nil {
		return nil, func() {}
	}
	progress = func(done, total int, next string) {
		bar.ChangeMax(total)
		bar.Describe(fmt.Sprintf("%-44s", next))
		_ = bar.Set(done) // only its drawing can fail
	}
	return progress, func() { _ = bar.Finish() }
}

// newBar makes a bar on a terminal; nil elsewhere.
func newBar(stderr io.Writer, options ...progressbar.Option) *progressbar.ProgressBar {
	f, ok := stderr.(*os.File)
	if !ok || !isTerminal(f) {
		return nil
	}
	return progressbar.NewOptions(1, append([]progressbar.Option{
		progressbar.OptionSetWriter(f),
		progressbar.OptionFullWidth(),
		progressbar.OptionShowElapsedTimeOnFinish(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100 * time.Millisecond),
	}, options...)...)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
