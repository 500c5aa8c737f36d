package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// notable is the smallest change that is worth a word; less is seen between two runs of the same program.
const notable = 0.05

// Change is how one row on one server differs between two reports.
type Change struct {
	Row      string
	Regime   Regime
	Server   string
	Unit     string // of Old and New: "s", "B", or "×" for ratios to the reference
	Old, New Stat
}

// Percent is how much more the new one takes; less than zero is an improvement.
func (c Change) Percent() float64 { return 100 * (c.New.Median/c.Old.Median - 1) }

// Verdict is "better" or "worse" if the change is more than what the samples of both reports scatter, else "".
func (c Change) Verdict() string {
	if !c.Old.disjoint(c.New) {
		return ""
	}
	switch ratio := c.New.Median / c.Old.Median; {
	case ratio > 1+notable:
		return "worse"
	case ratio < 1-notable:
		return "better"
	}
	return ""
}

// Compare returns what both reports have measured. Ratios to the reference are compared where both have them, since
// they depend less on the day and the machine, else the values themselves.
func Compare(old, new *Report) []Change {
	var changes []Change
	for _, row := range new.Rows {
		i := slices.IndexFunc(old.Rows, func(o *Row) bool { return o.Name == row.Name && o.Regime == row.Regime })
		if i < 0 {
			continue
		}
		for _, label := range new.Measured() {
			before, after := old.Rows[i].Cells[label], row.Cells[label]
			if before == nil || after == nil || before.Value.Median == 0 {
				continue
			}
			c := Change{Row: row.Name, Regime: row.Regime, Server: label, Unit: row.Unit, Old: before.Value, New: after.Value}
			if label != new.Reference && old.Reference == new.Reference && before.Ratio != nil && after.Ratio != nil && before.Ratio.Median > 0 {
				c.Unit, c.Old, c.New = "×", *before.Ratio, *after.Ratio
			}
			changes = append(changes, c)
		}
	}
	return changes
}

// WriteComparison writes the differences between two reports for a terminal.
func WriteComparison(w io.Writer, old, new *Report) error {
	changes := Compare(old, new)
	if len(changes) == 0 {
		return fmt.Errorf("the reports have no workload in common")
	}
	var b strings.Builder
	for _, r := range []*Report{old, new} {
		fmt.Fprintf(&b, "%s  %s\n", r.Started.Format("2006-01-02 15:04"), r.Machine)
	}
	if old.Scale != new.Scale {
		fmt.Fprintf(&b, "the sizes differ: scale %g and %g\n", old.Scale, new.Scale)
	}
	g := grid{{"", "regime", "backend", "old", "new", "change", ""}}
	count := map[string]int{}
	for _, c := range changes {
		count[c.Verdict()]++
		g = append(g, []string{
			c.Row, string(c.Regime), c.Server, c.text(c.Old), c.text(c.New), fmt.Sprintf("%+.0f%%", c.Percent()), c.Verdict(),
		})
	}
	fmt.Fprintf(&b, "\n%s\n%d better, %d worse, %d within the noise\n", g, count["better"], count["worse"], count[""])
	_, err := io.WriteString(w, b.String())
	return err
}

func (c Change) text(s Stat) string {
	if c.Unit == "×" {
		return fmt.Sprintf("%s ±%.0f%%", Times(s.Median), 100*s.Spread())
	}
	return fmt.Sprintf("%s ±%.0f%%", Quantity(s.Median, c.Unit), 100*s.Spread())
}
