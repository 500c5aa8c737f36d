package metrics

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var update = flag.Bool("update", false, "rewrite testdata/exposition.txt")

var operations = []string{1: "lookup", 15: "read"}

// full is a registry with everything in it, each with a value that is not its zero, and each value another.
func full(t testing.TB) *Registry {
	upper, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { upper.Close() })
	r := NewRegistry()
	u := NewUnion(operations)
	u.Opened(1, func() (nodes, files, watches int, uncopied int64) { return 2, 3, 5, 6 << 20 })
	for op, errnos := range map[uint32][]uint32{1: {0, 0, 2}, 15: {5}, 2: {38}, 99: {0, 9999}} {
		for _, errno := range errnos {
			u.Begin(op)
			u.End(op, errno, 40*time.Microsecond)
		}
	}
	u.Begin(15)
	u.Read(10, false)
	u.Read(20, true)
	u.Wrote(30, false)
	u.Wrote(40, true)
	for i := range 6 {
		u.Lookup(i < 3, i == 3, i+1)
	}
	u.CopyUpBegin()
	u.CopyUpBegin()
	u.CopyUpEnd(false)
	u.CopiedUp("range", 4096, 2*time.Millisecond)
	u.LowerChanged(6)
	u.Whiteout()
	u.Opaque()
	u.Opaque()
	for range 3 {
		u.Fault()
	}
	for range 7 {
		u.FillFailed()
	}
	r.AddUnion("/m", u)
	r.AddMount("/m", Mount{Backend: "fuse", Transport: "io_uring", Layers: 5, Since: time.Unix(1500000000, 250e6), Upper: int(upper.Fd())})
	r.AddMount("/k\xff", Mount{Backend: "kernel", Upper: -1})
	r.AddProcess("/m", "v1")
	r.AddUp("/m", true)
	r.AddUp("/dead", false)
	r.AddContainers(Containers{
		States: map[string]int{"running": 1, "exited": 2}, Exits: map[int]uint64{0: 3, 137: 4},
		Starts: 8, StartSeconds: 1.5, Bounds: []float64{0.1, 1}, StartsWithin: []uint64{6, 7},
	})
	return r
}

func gather(t testing.TB, r *Registry) Families {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func text(t testing.TB, f Families) string {
	t.Helper()
	var b bytes.Buffer
	if err := f.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNames(t *testing.T) {
	problems, err := promlint.NewWithMetricFamilies(gather(t, full(t)).Own()).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Every metric, its help, labels and value. After a change: go test ./metrics -update, and look at the difference.
func TestExposition(t *testing.T) {
	const golden = "testdata/exposition.txt"
	got := fixed(text(t, gather(t, full(t)).Own()))
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, string(want))
}

// fixed takes out what the machine decides.
func fixed(text string) string {
	text = regexp.MustCompile(`(?m)^(unionfsd_upper_\S+) \S+$`).ReplaceAllString(text, "$1 N")
	return regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(text, `goversion="go"`)
}

// same compares two long texts, and tells the first difference.
func same(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d:\n%swant:\n%s", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Fatalf("%d lines; want %d", len(g), len(w))
	}
}

func TestMergeAndFile(t *testing.T) {
	a, b := NewRegistry(), NewRegistry()
	for path, r := range map[string]*Registry{"/a": a, "/b": b} {
		u := NewUnion(operations)
		u.Whiteout()
		r.AddUnion(path, u)
		r.AddProcess(path, "v1")
	}
	all, err := Merge(gather(t, a), gather(t, b))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "unionfsd.prom")
	for range 2 { // the second time it is there already
		if err := all.Own().WriteFile(name); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"unionfsd_whiteouts_created_total{mountpoint=\"/a\"} 1\nunionfsd_whiteouts_created_total{mountpoint=\"/b\"} 1\n",
		`unionfsd_build_info{goversion="`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "go_goroutines") {
		t.Error("the textfile tells of the Go runtime, which node_exporter does too")
	}
	if left, _ := filepath.Glob(filepath.Dir(name) + "/.*.tmp"); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	if _, err := Merge(all, gather(t, a)); err == nil {
		t.Error("the same series twice is no error")
	}
	if err := all.WriteFile("/nonexistent/x.prom"); err == nil {
		t.Error("a textfile in a directory that does not exist")
	}
}

// What a request costs to be counted, with its clock.
func BenchmarkRequest(b *testing.B) {
	u := NewUnion(operations)
	epoch := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			u.Begin(1)
			begin := time.Since(epoch)
			u.End(1, 0, time.Since(epoch)-begin)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	u := NewUnion(operations)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			u.Lookup(true, false, 2)
		}
	})
}

func TestCountingAllocatesNothing(t *testing.T) {
	u := NewUnion(operations)
	count := func() {
		u.Begin(1)
		u.End(1, 2, 37*time.Microsecond)
		u.Lookup(true, false, 300)
		u.Read(4096, false)
		u.Wrote(4096, true)
	}
	count() // the first of each kind may make a bucket
	if n := testing.AllocsPerRun(100, count); n > 0 {
		t.Errorf("%v allocations per request", n)
	}
}
