package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/bench/workload"
	"github.com/unionfsd/unionfsd/fs/layer"
)

// measured is what one sample adds to one row of the report.
type measured struct {
	row   string
	unit  string // "s" or "B"
	value float64
	curve *workload.Point

	// Of a step; the rest have only a value.
	step      bool
	ops       int
	clientCPU float64 // seconds
	serverCPU float64 // seconds
	peak      float64 // bytes of resident memory of the servers
	counts    counts  // of a counting round
}

// scene is what one sample runs on: mounts, their servers, and the client.
type scene struct {
	*runner
	workload workload.Workload
	server   Server
	dir      string
	targets  []string
	mounted  []*process
	client   *client
	working  bool // the client was given an order that it has not answered

	began     time.Duration // when the first server was started, on CLOCK_MONOTONIC
	mountTime time.Duration
	devices   []string
}

// sample runs the workload once. What it has measured before an error counts.
func (r *runner) sample(ctx context.Context, w workload.Workload, l *layers, s Server, regime Regime, counting bool) (rows []measured, err error) {
	sc := &scene{runner: r, workload: w, server: s, dir: filepath.Join(r.dir, fmt.Sprintf("run%d", r.done))}
	defer func() {
		err = errors.Join(err, sc.close())
		if err != nil { // the directory is of this sample only, and says nothing
			err = errors.New(strings.ReplaceAll(err.Error(), sc.dir+"/", ""))
		}
	}()
	if err := sc.prepare(l); err != nil {
		return nil, err
	}
	if err := regime.on(func() error { return sc.start(ctx, l) }); err != nil {
		return nil, err
	}
	if w.Mount != "" && s.Kind != Native {
		rows = append(rows, measured{row: w.Mount, unit: "s", value: sc.mountTime.Seconds(), curve: w.Curve})
	}
	for i := range w.Steps {
		more, err := sc.step(ctx, i, counting)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// prepare makes the directories that each sample has for itself.
func (sc *scene) prepare(l *layers) error {
	if err := os.Mkdir(sc.dir, 0o755); err != nil {
		return err
	}
	if sc.server.Kind == Native {
		bare, err := l.bare(sc.dir, sc.workload.Changes)
		for range max(sc.workload.Mounts, 1) {
			sc.targets = append(sc.targets, bare)
		}
		return err
	}
	for i := range max(sc.workload.Mounts, 1) {
		target := filepath.Join(sc.dir, fmt.Sprint(i), "merged")
		for _, name := range []string{"merged", "upper", "work"} {
			if err := os.MkdirAll(filepath.Join(filepath.Dir(target), name), 0o755); err != nil {
				return err
			}
		}
		sc.targets = append(sc.targets, target)
	}
	return nil
}

// start starts the client and the servers, and waits until the unions are there.
func (sc *scene) start(ctx context.Context, l *layers) (err error) {
	sc.client, err = startClient(hello{sc.workload.Name, workload.Env{
		Dir: sc.targets[0], Dirs: sc.targets, Scratch: l.scratch, Scale: sc.Scale,
	}})
	if err != nil || sc.server.Kind == Native {
		return err
	}
	for i, target := range sc.targets {
		dir := filepath.Dir(target)
		spec := layer.Spec{Lower: l.lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
		if sc.workload.Fixed { // the kernel takes no single layer
			spec = layer.Spec{Lower: append([]string{spec.Upper}, l.lower...)}
		}
		if i == 0 {
			sc.began = monotonic()
		}
		p, err := start(sc.server.command(spec, target, filepath.Join(sc.dir, "state")))
		if err != nil {
			return err
		}
		sc.mounted = append(sc.mounted, p)
		a, err := sc.do(ctx, order{Await: target})
		if err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		if i == 0 {
			sc.mountTime = a.At - sc.began
		}
		sc.devices = append(sc.devices, a.Device)
	}
	return nil
}

// do has the client do something, as long as all servers live.
func (sc *scene) do(ctx context.Context, o order) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, sc.Timeout, fmt.Errorf("not done within %v", sc.Timeout))
	defer cancel()
	for _, p := range sc.mounted {
		var stop context.CancelFunc
		ctx, stop = p.while(ctx, sc.server.Label)
		defer stop()
	}
	sc.working = true
	a, err := sc.client.do(ctx, o)
	sc.working = ctx.Err() != nil
	return a, err
}

// step runs one step and returns the rows that it adds to.
func (sc *scene) step(ctx context.Context, number int, counting bool) ([]measured, error) {
	step := sc.workload.Steps[number]
	if step.Before != nil {
		if _, err := sc.do(ctx, order{Step: number, Before: true}); err != nil {
			return nil, fmt.Errorf("before %s: %w", step.Name, err)
		}
	}
	if err := settle(sc.dir, step.Cold); err != nil {
		return nil, err
	}
	cpu, err := sc.serverCPU()
	if err != nil {
		return nil, err
	}
	for _, p := range sc.servers() {
		if err := p.forgetPeak(); err != nil {
			return nil, err
		}
	}
	cached, err := sizeField("/proc/meminfo", "Cached")
	if err != nil {
		return nil, err
	}
	var counter *counter
	if counting {
		if counter, err = sc.tracing.count(sc.devices, sc.servers()); err != nil {
			return nil, err
		}
		defer counter.close()
	}

	a, err := sc.do(ctx, order{Step: number})
	if err != nil {
		return nil, err
	}

	m := measured{row: step.Name, unit: "s", value: a.Seconds, curve: step.Curve, step: true, ops: a.Ops, clientCPU: a.CPU}
	if counter != nil {
		if m.counts, err = counter.read(); err != nil {
			return nil, err
		}
	}
	if step.PlusMount {
		m.value += sc.mountTime.Seconds()
	}
	after, err := sc.serverCPU()
	if err != nil {
		return nil, err
	}
	m.serverCPU = (after - cpu).Seconds()
	var resident float64
	for _, p := range sc.servers() {
		peak, err := p.memory("VmHWM")
		if err != nil {
			return nil, err
		}
		now, err := p.memory("VmRSS")
		if err != nil {
			return nil, err
		}
		m.peak, resident = m.peak+float64(peak), resident+float64(now)
	}
	var rows []measured
	if !step.Untimed {
		rows = append(rows, m)
	}
	if step.Memory != "" && sc.server.serves() {
		rows = append(rows, measured{row: step.Memory, unit: "B", value: resident, curve: step.Curve})
	}
	if step.PageCache != "" {
		now, err := sizeField("/proc/meminfo", "Cached")
		if err != nil {
			return nil, err
		}
		rows = append(rows, measured{row: step.PageCache, unit: "B", value: float64(now - cached)})
	}
	for _, v := range a.Values {
		rows = append(rows, measured{row: v.Name, unit: v.Unit, value: v.V, curve: step.Curve})
	}
	return rows, nil
}

// servers returns the processes that answer requests.
func (sc *scene) servers() []*process {
	if !sc.server.serves() {
		return nil
	}
	return sc.mounted
}

func (sc *scene) serverCPU() (total time.Duration, err error) {
	for _, p := range sc.servers() {
		cpu, err := p.cpu()
		if err != nil {
			return 0, err
		}
		total += cpu
	}
	return total, nil
}

// close ends everything that the sample has started, and removes what it has written.
func (sc *scene) close() error {
	var errs []error
	hung := sc.working
	if hung { // in a request that nobody will answer: only the end of the server frees it
		for _, p := range sc.mounted {
			p.kill()
		}
	}
	if sc.client != nil {
		errs = append(errs, sc.client.close(hung))
	}
	for i, p := range sc.mounted {
		flags := unix.UMOUNT_NOFOLLOW
		if hung {
			flags |= unix.MNT_DETACH
		}
		err := unix.Unmount(sc.targets[i], flags)
		if err == unix.EBUSY { // what the client has started may not be gone for good
			time.Sleep(100 * time.Millisecond)
			err = unix.Unmount(sc.targets[i], flags)
		}
		if err != nil && err != unix.EINVAL { // EINVAL: it was not mounted, or has unmounted itself
			errs = append(errs, fmt.Errorf("unmount %s: %w", sc.targets[i], err), unix.Unmount(sc.targets[i], unix.MNT_DETACH))
		}
		errs = append(errs, p.end())
	}
	return errors.Join(append(errs, os.RemoveAll(sc.dir))...)
}

// settle has written what was changed on the file system of dir, for it not to be written while something else is
// measured, and drops what the kernel remembers if the next step is to be cold.
func settle(dir string, cold bool) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	if !cold {
		return nil
	}
	const everything = "3"
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte(everything), 0)
}
