package bench_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/bench"
	"github.com/unionfsd/unionfsd/bench/workload"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestRun runs the benchmark itself, on a unionfsd that is built once.
func TestRun(t *testing.T) {
	testfs.NeedRoot(t)
	unionfsd := program(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"workloads", testWorkloads},
		{"count", testCount},
		{"broken server", testBrokenServer},
		{"hanging server", testHangingServer},
		{"interrupt", testInterrupt},
		{"claim", testClaim},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, unionfsd) })
	}
}

func config(t *testing.T, unionfsd, list string, names ...string) bench.Config {
	t.Helper()
	servers, err := bench.ParseServers(list, unionfsd)
	if err != nil {
		t.Fatal(err)
	}
	workloads, err := workload.Select(names)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filepath.Abs("..") // some source
	if err != nil {
		t.Fatal(err)
	}
	return bench.Config{
		Servers: servers, Workloads: workloads, Regimes: bench.Regimes(), Runs: 1, Scale: 0.005,
		Dir: t.TempDir(), Tree: tree, Program: unionfsd, Timeout: time.Minute,
	}
}

// One workload of each kind: with several steps, with changes, with several layers, with an external program, with
// several mounts and containers. make bench-smoke runs all of them.
func testWorkloads(t *testing.T, unionfsd string) {
	cfg := config(t, unionfsd, "native,kernel,fuse", "walk", "names", "layers-2", "copyup-others", "untar", "containers-20")
	cfg.Regimes = []bench.Regime{bench.Pinned}
	calls := 0
	cfg.Progress = func(done, total int, next string) {
		if calls++; done != calls-1 || done >= total || next == "" {
			t.Errorf("progress %d of %d: %q, call %d", done, total, next, calls)
		}
	}
	report, err := bench.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) > 0 {
		t.Errorf("notes: %q", report.Notes)
	}
	if report.Reference != "kernel" {
		t.Errorf("reference = %q", report.Reference)
	}
	for _, name := range []string{"cold-walk", "warm-walk", "warm-stat", "create", "rename", "rmdir", "layers-2-mount", "layers-2-negative",
		"others-p99", "untar", "rm-untarred", "containers-20", "containers-20-cache"} {
		i := slices.IndexFunc(report.Rows, func(r *bench.Row) bool { return r.Name == name })
		if i < 0 {
			t.Errorf("no row %s", name)
			continue
		}
		for _, label := range []string{"kernel", "fuse"} {
			if c := report.Rows[i].Cells[label]; c == nil || len(c.Samples) != 1 || c.Ratio == nil {
				t.Errorf("%s on %s: %+v", name, label, c)
			} else if label == "fuse" && c.Ops > 0 && (c.Peak < 1<<20 || c.ServerCPU == 0 && name == "cold-walk") {
				t.Errorf("%s on fuse: memory %v, CPU %v of the server were not measured", name, c.Peak, c.ServerCPU)
			}
		}
	}
	empty(t, cfg.Dir)
}

// Requests are those of the server that is measured: an open is one and its close another.
func testCount(t *testing.T, unionfsd string) {
	cfg := config(t, unionfsd, "fuse", "open-close")
	cfg.Regimes, cfg.Count = []bench.Regime{bench.Pinned}, true
	report, err := bench.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) > 0 {
		testfs.Skip(t, "%q", report.Notes)
	}
	c := report.Rows[0].Cells["fuse"].Counted
	if c == nil || c.Requests < 1 || c.Requests > 6 || c.Syscalls < c.Requests {
		t.Fatalf("counted %+v", c)
	}
	var sum float64
	for _, n := range c.ByCode {
		sum += n
	}
	if sum != c.Requests {
		t.Errorf("%v requests, %v of them of known kinds: %v", c.Requests, sum, c.ByCode)
	}
}

// A server that does not serve is a note, not the end of the run, and leaves nothing.
func testBrokenServer(t *testing.T, unionfsd string) {
	broken := filepath.Join(t.TempDir(), "broken")
	script := "#!/bin/sh\n[ \"$1\" = version ] || { echo 'no such luck' >&2; exit 3; }\n"
	if err := os.WriteFile(broken, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, unionfsd, "kernel,broken=fuse@"+broken, "open-close")
	report, err := bench.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) != 1 || !strings.Contains(report.Notes[0], "broken, open-close: mount: broken ended: exit status 3: no such luck") {
		t.Errorf("notes: %q", report.Notes)
	}
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("Err = %v: what unionfsd itself cannot do is a fault", err)
	}
	if len(report.Rows) != 2 || report.Rows[0].Regime != bench.Pinned || report.Rows[1].Regime != bench.Free {
		t.Fatalf("rows %v, want one in each regime", report.Rows)
	}
	for _, row := range report.Rows {
		if c := row.Cells["kernel"]; c == nil || len(c.Samples) != 1 {
			t.Errorf("the kernel was not measured: %+v", c)
		}
	}
	empty(t, cfg.Dir)
}

// A server that hangs is killed after the time-out.
func testHangingServer(t *testing.T, unionfsd string) {
	hanging := filepath.Join(t.TempDir(), "hanging")
	if err := os.WriteFile(hanging, []byte("#!/bin/sh\n[ \"$1\" = version ] || exec sleep 300\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, unionfsd, "fuse@"+hanging, "open-close")
	cfg.Timeout = 200 * time.Millisecond
	begin := time.Now()
	report, err := bench.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) != 1 || !strings.Contains(report.Notes[0], "not done within 200ms") {
		t.Errorf("notes: %q", report.Notes)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	empty(t, cfg.Dir)
}

func testInterrupt(t *testing.T, unionfsd string) {
	cfg := config(t, unionfsd, "kernel,fuse", "walk", "names")
	cfg.Runs = 1000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Progress = func(done, _ int, _ string) {
		if done == 3 {
			time.AfterFunc(30*time.Millisecond, cancel) // somewhere in the sample
		}
	}
	report, err := bench.Run(ctx, cfg)
	if err == nil || err.Error() != "interrupted" {
		t.Errorf("err = %v, want interrupted and no trouble with cleaning up", err)
	}
	if report == nil || len(report.Rows) == 0 {
		t.Error("what was measured before is lost")
	}
	empty(t, cfg.Dir)
}

// There is one benchmark at a time in a directory, and it removes what a killed one has left.
func testClaim(t *testing.T, unionfsd string) {
	cfg := config(t, unionfsd, "kernel", "byte-1m")
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "unionfsd-bench-1/2/3"), 0o755); err != nil {
		t.Fatal(err)
	}
	var second error
	cfg.Progress = func(int, int, string) {
		again := cfg
		again.Progress = nil
		_, second = bench.Run(t.Context(), again)
	}
	if _, err := bench.Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if second == nil || !strings.Contains(second.Error(), "another benchmark") {
		t.Errorf("a second benchmark in the same directory: %v", second)
	}
	empty(t, cfg.Dir)
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
