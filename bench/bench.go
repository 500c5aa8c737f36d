package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/bench/workload"
)

// Config is what to measure.
type Config struct {
	Servers   []Server
	Workloads []workload.Workload
	Regimes   []Regime
	Runs      int            // rounds in each regime; 0 is what the regime needs
	Scale     workload.Scale // of the sizes; 1 is the real thing
	Dir       string         // where layers are made; on the file system to be measured
	Tree      string         // a large source tree to stack; "" if there is none
	Program   string         // unionfsd, which is also the program that runs in containers
	Count     bool           // count requests and system calls, in a round that is not timed
	Timeout   time.Duration  // for one step of one sample

	// Progress is called before each sample: how many of them are done, and what comes next.
	Progress func(done, total int, next string)
}

// Regime is who runs on which CPU.
type Regime string

// The regimes.
const (
	// Pinned: client and server on the same CPU. A request is a switch of processes, 3 to 6 microseconds.
	Pinned Regime = "pinned"
	// Free: wherever the scheduler puts them. A request wakes up another CPU, 10 to 50 microseconds, or does not.
	Free Regime = "free"
)

// Regimes returns both regimes.
func Regimes() []Regime { return []Regime{Pinned, Free} }

// rounds is how many runs make a median that can be relied on.
func (r Regime) rounds() int {
	if r == Free {
		return 7 // the same server, mounted twice, was seen to differ by a factor of four
	}
	return 5
}

// Run measures. It needs root. When it returns, nothing of what it made is left; if ctx ends early, that is
// [ErrInterrupted].
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can drop caches and mount with every backend: run as root")
	}
	type result struct {
		report *Report
		err    error
	}
	done := make(chan result)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine: it has a mount namespace of its own, and its
		// end is what ends the processes that it has started.
		runtime.LockOSThread()
		report, err := run(ctx, cfg)
		done <- result{report, err}
	}()
	r := <-done
	return r.report, r.err
}

func run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := privateMounts(); err != nil {
		return nil, err
	}
	claim, err := claim(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer claim.Close()
	dir, err := os.MkdirTemp(cfg.Dir, dirPrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	// Layers on overlayfs would make every server but ours fail, and a path with a colon in it the peers.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if err := spreadOut(dir); err != nil {
		return nil, err
	}
	r := &runner{Config: cfg, dir: dir, report: newReport(cfg, dir)}
	if cfg.Count {
		if r.tracing, err = newTracing(filepath.Join(dir, "trace")); err != nil {
			r.report.Notes = append(r.report.Notes, fmt.Sprintf("requests were not counted: %v", err))
		}
		defer r.tracing.close()
	}
	err = r.all(ctx)
	if err != nil && err != ErrInterrupted {
		return nil, err
	}
	r.report.finish()
	return r.report, err
}

// privateMounts gives this thread and what it starts a mount namespace of their own.
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace for the benchmark: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// ErrInterrupted is what [Run] returns, with a report of what was measured until then, when its context ends.
var ErrInterrupted = errors.New("interrupted")

// dirPrefix begins the name of the directory of a run.
const dirPrefix = "unionfsd-bench-"

// claim makes this the only benchmark in dir until the file is closed: each would drop the caches of the other. It
// removes what one that was killed has left there.
func claim(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("another benchmark runs in %s: wait until it has ended", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, dirPrefix+"*"))
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			f.Close()
			return nil, fmt.Errorf("left by a benchmark that was killed: %w", err)
		}
	}
	return f, nil
}

// removeAll removes dir, in which lower layers may still be protected.
func removeAll(dir string) error {
	below, _ := filepath.Glob(dir + "/*")
	for _, path := range below {
		_ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // EINVAL: nothing is mounted there
	}
	return os.RemoveAll(dir)
}

type runner struct {
	Config
	dir     string
	report  *Report
	tracing *tracing // nil if nothing can be counted
	done    int      // samples
}

func (r *runner) all(ctx context.Context) error {
	stock := &stock{
		dir:   r.dir,
		with:  workload.Builder{Tree: r.Tree, Program: r.Program, Scale: r.Scale},
		built: map[string]*layers{},
	}
	for i, w := range r.Workloads {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if err := lacks(w, r.Tree); err != nil {
			r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s was not run: %v", w.Name, err))
			r.done += r.samples() / len(r.Workloads)
			continue
		}
		layers, err := stock.get(w.Layers)
		if err != nil {
			return fmt.Errorf("layers for %s: %w", w.Name, err)
		}
		if err := r.workload(ctx, w, layers); err != nil {
			return err
		}
		stillUsed := slices.ContainsFunc(r.Workloads[i+1:], func(later workload.Workload) bool {
			return later.Layers.Name == w.Layers.Name
		})
		if !stillUsed {
			if err := stock.drop(w.Layers); err != nil {
				return err
			}
		}
	}
	return nil
}

// workload runs all rounds of one workload.
func (r *runner) workload(ctx context.Context, w workload.Workload, layers *layers) error {
	failed := map[string]bool{}
	round := func(number int, regime Regime, counting bool) error {
		for i := range r.Servers {
			s := r.Servers[(i+max(number, 0))%len(r.Servers)]
			if s.Missing != "" {
				continue
			}
			r.progress(fmt.Sprintf("%s %s %s", w.Name, s.Label, regime))
			r.done++
			if failed[s.Label] || counting && s.Kind == Native {
				continue
			}
			rows, err := r.sample(ctx, w, layers, s, regime, counting)
			if ctx.Err() != nil {
				return ErrInterrupted
			}
			if err != nil {
				failed[s.Label] = true
				r.report.fail(w, s.Label, err)
			}
			r.report.add(w, regime, number, s.Label, rows, counting)
		}
		return nil
	}
	if r.tracing != nil {
		if err := round(-1, r.Regimes[0], true); err != nil {
			return err
		}
	}
	for _, regime := range r.Regimes {
		for number := range r.rounds(regime) {
			if err := round(number, regime, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) rounds(regime Regime) int {
	if r.Runs > 0 {
		return r.Runs
	}
	return regime.rounds()
}

// samples is how many there will be.
func (r *runner) samples() int {
	rounds := 0
	if r.tracing != nil {
		rounds++
	}
	for _, regime := range r.Regimes {
		rounds += r.rounds(regime)
	}
	servers := 0
	for _, s := range r.Servers {
		if s.Missing == "" {
			servers++
		}
	}
	return rounds * servers * len(r.Workloads)
}

func (r *runner) progress(next string) {
	if r.Progress != nil {
		r.Progress(r.done, r.samples(), next)
	}
}
