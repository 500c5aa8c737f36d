package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// gauge is one metric of the text format.
type gauge struct {
	name, help string
	value      func(*Row, *Cell) (float64, bool)
}

var gauges = []gauge{
	{"unionfsd_bench_duration_seconds", "Median time of a benchmark.", func(row *Row, c *Cell) (float64, bool) {
		return c.Value.Median, row.Unit == "s"
	}},
	{"unionfsd_bench_size_bytes", "Median of what a benchmark has measured in bytes.", func(row *Row, c *Cell) (float64, bool) {
		return c.Value.Median, row.Unit == "B"
	}},
	{"unionfsd_bench_reference_ratio", "Median ratio to the reference backend of the same run, which is the kernel's overlayfs unless it was left out.", func(_ *Row, c *Cell) (float64, bool) {
		if c.Ratio == nil {
			return 0, false
		}
		return c.Ratio.Median, true
	}},
	{"unionfsd_bench_server_cpu_seconds", "Median CPU time of the server during a benchmark.", func(_ *Row, c *Cell) (float64, bool) {
		return c.ServerCPU, c.Peak > 0
	}},
	{"unionfsd_bench_client_cpu_seconds", "Median CPU time of the client during a benchmark.", func(_ *Row, c *Cell) (float64, bool) {
		return c.ClientCPU, c.Ops > 0
	}},
	{"unionfsd_bench_server_peak_resident_bytes", "Peak of the resident memory of the server during a benchmark.", func(_ *Row, c *Cell) (float64, bool) {
		return c.Peak, c.Peak > 0
	}},
	{"unionfsd_bench_operation_requests", "FUSE requests for one operation of a benchmark.", func(_ *Row, c *Cell) (float64, bool) {
		if c.Counted == nil {
			return 0, false
		}
		return c.Counted.Requests, true
	}},
}

// WriteTextfile writes the report for the textfile collector of node_exporter, by one rename.
func (r *Report) WriteTextfile(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.WriteString(r.prometheus())
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func (r *Report) prometheus() string {
	var b strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace
	for _, g := range gauges {
		var lines []string
		for _, row := range r.Rows {
			for label, c := range row.Cells {
				if v, ok := g.value(row, c); ok {
					lines = append(lines, fmt.Sprintf("%s{workload=\"%s\",regime=\"%s\",backend=\"%s\"} %g\n",
						g.name, escape(row.Name), row.Regime, escape(label), v))
				}
			}
		}
		if len(lines) == 0 {
			continue
		}
		slices.Sort(lines)
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s", g.name, g.help, g.name, strings.Join(lines, ""))
	}
	fmt.Fprintf(&b, "# HELP unionfsd_bench_timestamp_seconds When the benchmark began.\n# TYPE unionfsd_bench_timestamp_seconds gauge\nunionfsd_bench_timestamp_seconds %d\n", r.Started.Unix())
	return b.String()
}
