package bench

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/bench/workload"
)

// sampleReport is what a run of three servers and one that is missing would give: fuse takes factor times as long as
// the kernel.
func sampleReport(factor float64) *Report {
	cfg := Config{Scale: 1, Servers: []Server{
		{Label: "fuse", Kind: FUSE, Version: "unionfsd 1.0"}, {Label: "kernel", Kind: Kernel}, {Label: "native", Kind: Native},
		{Label: "mergerfs", Kind: "mergerfs", Missing: "not in PATH"},
	}}
	r := newReport(cfg, os.TempDir())
	r.Machine = Machine{CPU: "a CPU", CPUs: 2, Memory: 4 << 30, Kernel: "6.18", OS: "Debian", FileSystem: "ext4", Load: "0 0 0"}
	r.Started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := workload.Workload{Name: "walk", Group: "metadata", Doc: `stat <everything> & more`}
	deep := workload.Workload{Name: "layers", Group: "depth", Doc: "many layers"}
	for round := range 5 {
		base := 0.1 + 0.001*float64(round)
		for label, v := range map[string]float64{"fuse": base * factor, "kernel": base, "native": base / 2} {
			m := measured{row: "cold-walk", unit: "s", value: v, step: true, ops: 10, clientCPU: v / 2}
			if label == "fuse" {
				m.serverCPU, m.peak = v/3, 20<<20
			}
			rows := []measured{m}
			for _, n := range []float64{2, 250} {
				point := &workload.Point{Curve: "cold walk", Axis: "layers", X: n}
				rows = append(rows, measured{row: fmt.Sprint("layers-", n), unit: "s", value: v * n, curve: point})
			}
			r.add(w, Pinned, round, label, rows[:1], false)
			r.add(deep, Pinned, round, label, rows[1:], false)
		}
	}
	r.add(w, Pinned, -1, "fuse", []measured{{row: "cold-walk", unit: "s", step: true, ops: 10, counts: counts{requests: 25, syscalls: 60, byCode: map[string]uint64{"LOOKUP": 20}}}}, true)
	r.fail(w, "native", io.ErrUnexpectedEOF)
	r.finish()
	return r
}

func TestReport(t *testing.T) {
	r := sampleReport(2)
	if r.Reference != "kernel" {
		t.Errorf("reference = %q, want kernel though fuse comes first", r.Reference)
	}
	c := r.Rows[0].Cells["fuse"]
	if c.Ratio.Median != 2 || c.Ratio.Spread() > 1e-9 {
		t.Errorf("ratio = %+v, want exactly 2: each round has its own", c.Ratio)
	}
	if c.Counted == nil || c.Counted.Requests != 2.5 || c.Counted.ByCode["LOOKUP"] != 2 {
		t.Errorf("counted = %+v, want 2.5 requests for an operation", c.Counted)
	}
	if got := r.Rows[0].Cells["kernel"].Ratio.Median; got != 1 {
		t.Errorf("ratio of the reference = %v", got)
	}
}

// Without the kernel the first server is the reference, and the counting round makes no rows.
func TestReportWithoutKernel(t *testing.T) {
	r := newReport(Config{Servers: []Server{{Label: "mergerfs", Missing: "gone"}, {Label: "fuse", Kind: FUSE}, {Label: "fuse#2", Kind: FUSE}}}, os.TempDir())
	if r.Reference != "fuse" {
		t.Errorf("reference = %q, want fuse", r.Reference)
	}
	r.add(workload.Workload{}, Pinned, -1, "fuse", []measured{{row: "x", step: true, ops: 1}}, true)
	r.finish()
	if len(r.Rows) != 0 {
		t.Errorf("rows without samples: %v", r.Rows)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport(2).WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mergerfs: not in PATH, not measured",
		"cold-walk    102 ms   204 ms  ×2.00 ±0%   51.0 ms  ×0.50 ±0%",
		"0.10+0.07 s  20.0 MiB  2.50/6.00",
		"note: native, walk: unexpected EOF",
	}
	for _, text := range want {
		if !strings.Contains(b.String(), text) {
			t.Errorf("the table has no %q:\n%s", text, &b)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	r := sampleReport(2)
	path := filepath.Join(t.TempDir(), "report.json")
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var before, after bytes.Buffer
	if err := r.WriteTable(&before); err != nil {
		t.Fatal(err)
	}
	if err := back.WriteTable(&after); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() {
		t.Errorf("the report is another one after Save and Load:\n%s\n%s", &before, &after)
	}
	for text, want := range map[string]string{`{"version": 99}`: "format 99", `[]`: "no report"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load of %s: %v, want %q", text, err, want)
		}
	}
}

func TestCompare(t *testing.T) {
	old, same, worse := sampleReport(2), sampleReport(2.02), sampleReport(3)
	for _, test := range []struct {
		old, new *Report
		want     string
	}{{old, same, ""}, {old, worse, "worse"}, {worse, old, "better"}} {
		found := false
		for _, c := range Compare(test.old, test.new) {
			if c.Server == "fuse" {
				found = true
				if c.Unit != "×" || c.Verdict() != test.want {
					t.Errorf("%+v: verdict %q, want %q", c, c.Verdict(), test.want)
				}
			} else if c.Verdict() != "" {
				t.Errorf("%+v: verdict %q of what is the same", c, c.Verdict())
			}
		}
		if !found {
			t.Error("fuse was not compared")
		}
	}
	var b bytes.Buffer
	if err := WriteComparison(&b, old, worse); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`cold-walk +pinned +fuse +×2\.00 ±0% +×3\.00 ±0% +\+50% +worse`).MatchString(b.String()) {
		t.Errorf("comparison:\n%s", &b)
	}
	if err := WriteComparison(&b, old, &Report{}); err == nil {
		t.Error("reports without a common workload were compared")
	}
}

// Of two reports that have scattered, only what lies outside of both counts as a change.
func TestVerdictIsAboutNoise(t *testing.T) {
	wide := Stat{Median: 1, P25: 0.5, P75: 1.5}
	if v := (Change{Old: wide, New: Stat{1.4, 1.3, 1.6}}).Verdict(); v != "" {
		t.Errorf("verdict %q of overlapping samples", v)
	}
	if v := (Change{Old: wide, New: Stat{1.8, 1.7, 1.9}}).Verdict(); v != "worse" {
		t.Errorf("verdict %q, want worse", v)
	}
}

func TestWriteResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	r := sampleReport(2)
	for range 2 {
		if err := r.WriteResults(path); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "| cold-walk | 102 ms | 204 ms  ×2.00 ±0% |"); n != 1 {
		t.Errorf("the row is there %d times, want once however often it is written:\n%s", n, text)
	}
	mine := "# By hand\n\n" + resultsBegin + "\nold\n" + resultsEnd + "\n\nthe end\n"
	if err := os.WriteFile(path, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteResults(path); err != nil {
		t.Fatal(err)
	}
	text, _ = os.ReadFile(path)
	if s := string(text); !strings.HasPrefix(s, "# By hand\n") || !strings.HasSuffix(s, "\n\nthe end\n") || strings.Contains(s, "\nold\n") {
		t.Errorf("what is written by hand has to stay, and what was generated has to go:\n%s", s)
	}
	if err := os.WriteFile(path, []byte("no marks\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteResults(path); err == nil {
		t.Error("a file without marks was written to")
	}
}

// Every line of the text format is a comment or a sample of a metric that a comment has announced.
func TestTextfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.prom")
	if err := sampleReport(2).WriteTextfile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sample := regexp.MustCompile(`^(unionfsd_bench_[a-z_]+)(\{workload="[^"]+",regime="pinned",backend="[^"]+"\})? [0-9.e+-]+$`)
	typed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			typed[strings.Fields(name)[0]] = true
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		if m := sample.FindStringSubmatch(line); m == nil || !typed[m[1]] {
			t.Errorf("not a sample of an announced metric: %q", line)
		}
	}
	want := `unionfsd_bench_reference_ratio{workload="cold-walk",regime="pinned",backend="fuse"} 2` + "\n"
	if !strings.Contains(string(text), want) {
		t.Errorf("no %s in\n%s", want, text)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.*-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The page is well-formed, escapes what it shows, draws the bars and the curve, and fetches nothing.
func TestHTML(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport(2).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, text := range []string{"stat &lt;everything&gt; &amp; more", "×2.00", "not in PATH: not measured", `class="l0" d="M`, "unexpected EOF"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page has no %q", text)
		}
	}
	if found := regexp.MustCompile(`<script|src=|href="[^#]|url\(|@import|ZgotmplZ|NaN|Inf`).FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
	}
}
