package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// WriteTable writes the report for a terminal: for each regime one table with the times and ratios, and one with what
// they cost.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.Machine)
	for _, s := range r.Servers {
		if s.Missing != "" {
			fmt.Fprintf(&b, "%s: %s, not measured\n", s.Label, s.Missing)
		}
	}
	for _, regime := range r.Regimes() {
		fmt.Fprintf(&b, "\n%s (%s); median, and times %s with the spread of the middle half\n", regime, regime.doc(), r.Reference)
		b.WriteString(r.times(regime).String())
		if costs := r.costs(regime); len(costs) > 1 {
			fmt.Fprintf(&b, "\n%s: CPU seconds of client + server, peak memory of the server, requests and system calls of the server for one operation\n", regime)
			b.WriteString(costs.String())
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(&b)
		for _, note := range r.Notes {
			fmt.Fprintln(&b, "note:", note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Regimes returns the regimes that have rows.
func (r *Report) Regimes() (found []Regime) {
	for _, regime := range Regimes() {
		for _, row := range r.Rows {
			if row.Regime == regime {
				found = append(found, regime)
				break
			}
		}
	}
	return found
}

func (r Regime) doc() string {
	if r == Pinned {
		return "client and server on one CPU"
	}
	return "client and server wherever the scheduler puts them"
}

// labels returns the servers that were measured, the reference first.
func (r *Report) labels() []string {
	labels := []string{r.Reference}
	for _, label := range r.Measured() {
		if label != r.Reference {
			labels = append(labels, label)
		}
	}
	return labels
}

// times is the table of values and ratios.
func (r *Report) times(regime Regime) grid {
	labels := r.labels()
	g := grid{append([]string{""}, labels...)}
	for _, row := range r.Rows {
		if row.Regime != regime {
			continue
		}
		line := []string{row.Name}
		for _, label := range labels {
			line = append(line, row.Cells[label].text(row.Unit, label == r.Reference))
		}
		g = append(g, line)
	}
	return g
}

// text is a cell in one word or three; c may be nil.
func (c *Cell) text(unit string, reference bool) string {
	if c == nil || len(c.Samples) == 0 {
		return "-"
	}
	if reference || c.Ratio == nil {
		return Quantity(c.Value.Median, unit)
	}
	return fmt.Sprintf("%s  %s ±%.0f%%", Quantity(c.Value.Median, unit), Times(c.Ratio.Median), 100*c.Ratio.Spread())
}

// costs is the table of what the steps have used: all of it is CPU time, the servers that are processes have more.
func (r *Report) costs(regime Regime) grid {
	labels := r.labels()
	g := grid{append([]string{""}, labels...)}
	for _, row := range r.Rows {
		if row.Regime != regime {
			continue
		}
		line := []string{row.Name}
		some := false
		for _, label := range labels {
			text := row.Cells[label].cost()
			line = append(line, text)
			some = some || text != "-"
		}
		if some {
			g = append(g, line)
		}
	}
	return g
}

// cost is a cell in some words; c may be nil.
func (c *Cell) cost() string {
	if c == nil || c.Ops == 0 {
		return "-"
	}
	text := fmt.Sprintf("%.2f", c.ClientCPU)
	if c.Peak > 0 {
		text += fmt.Sprintf("+%.2f s  %s", c.ServerCPU, Quantity(c.Peak, "B"))
	} else {
		text += " s"
	}
	if c.Counted != nil {
		text += fmt.Sprintf("  %s/%s", short(c.Counted.Requests), short(c.Counted.Syscalls))
	}
	return text
}

// Quantity writes a value with its unit, to three digits.
func Quantity(v float64, unit string) string {
	type step struct {
		over float64
		name string
	}
	steps := []step{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}}
	if unit == "B" {
		steps = []step{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}}
	}
	for i, s := range steps {
		if math.Abs(v) >= s.over || i == len(steps)-1 {
			return short(v/s.over) + " " + s.name
		}
	}
	panic("unreachable")
}

// Times writes a ratio.
func Times(ratio float64) string { return "×" + short(ratio) }

// short writes a number to three digits at most, as far as they are before or near the point.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}

// grid is a table, its first line the head.
type grid [][]string

// String aligns the columns: the first to the left, the others to the right.
func (g grid) String() string {
	widths := make([]int, len(g[0]))
	for _, line := range g {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, cells := range g {
		var line strings.Builder
		for i, cell := range cells {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + pad)
			} else {
				line.WriteString("   " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
