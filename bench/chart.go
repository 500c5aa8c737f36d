package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// The charts of the HTML report, as geometry in pixels. Their scales are logarithmic: twice as fast and twice as slow
// are as far from the middle, and a ratio of a thousand does not flatten the others.

// barChart compares the servers with the reference, a group of bars for each row. Bars start at ×1: to the right is
// slower, to the left faster.
type barChart struct {
	Group         string
	Width, Height float64
	One           float64 // where ×1 is
	Ticks         []tick
	Rows          []barRow
}

type barRow struct {
	Name, Doc string
	Y         float64 // of the name
	Line      float64 // under the row
	Bars      []bar
}

type bar struct {
	X, Y, W, H float64
	Low, High  float64 // the middle half
	Mid        float64
	TextX      float64
	Text       string
	Left       bool // the text stands left of the bar
	Series     int
	Title      string
}

type tick struct {
	At   float64
	Text string
}

const (
	labelWidth = 170.0 // of the names of rows
	plotWidth  = 560.0
	textRoom   = 56.0 // for the number at the end of a bar, on both sides
	barHeight  = 11.0
	rowGap     = 11.0
	axisHeight = 24.0
)

// barCharts returns a chart for each group of the regime.
func (r *Report) barCharts(regime Regime) (charts []barChart) {
	for _, group := range r.groups() {
		var rows []*Row
		for _, row := range r.Rows {
			if row.Regime == regime && row.Group == group && row.Curve == nil && row.hasRatio(r.Reference) {
				rows = append(rows, row)
			}
		}
		if len(rows) > 0 {
			charts = append(charts, r.barChart(group, rows))
		}
	}
	return charts
}

func (r *Report) groups() (groups []string) {
	for _, row := range r.Rows {
		if !slices.Contains(groups, row.Group) {
			groups = append(groups, row.Group)
		}
	}
	return groups
}

func (row *Row) hasRatio(reference string) bool {
	for label, c := range row.Cells {
		if label != reference && c.Ratio != nil && c.Ratio.Median > 0 {
			return true
		}
	}
	return false
}

func (r *Report) barChart(group string, rows []*Row) barChart {
	low, high := 0.5, 2.0
	for _, row := range rows {
		for label, c := range row.Cells {
			if label != r.Reference && c.Ratio != nil && c.Ratio.Median > 0 {
				low, high = min(low, c.Ratio.Median), max(high, c.Ratio.Median)
			}
		}
	}
	low, high = low/1.2, high*1.2
	left := labelWidth + textRoom
	x := logScale(low, high, left, left+plotWidth)
	within := func(ratio float64) float64 { return x(min(max(ratio, low), high)) } // noise is not to stretch the scale
	chart := barChart{Group: group, Width: left + plotWidth + textRoom, One: x(1)}
	for _, t := range ratioTicks(low, high) {
		chart.Ticks = append(chart.Ticks, tick{x(t), fmt.Sprintf("×%g", t)})
	}
	y := axisHeight
	for _, row := range rows {
		line := barRow{Name: row.Name, Doc: row.Doc}
		top := y + rowGap/2
		for series, s := range r.Servers {
			c := row.Cells[s.Label]
			if s.Label == r.Reference || c == nil || c.Ratio == nil || c.Ratio.Median <= 0 {
				continue
			}
			end := x(c.Ratio.Median)
			b := bar{
				X: min(end, chart.One), W: max(math.Abs(end-chart.One), 1), Y: top, H: barHeight - 2, Mid: top + barHeight/2 - 1,
				Low: within(c.Ratio.P25), High: within(c.Ratio.P75),
				Text: Times(c.Ratio.Median), Left: end < chart.One, Series: series,
				Title: fmt.Sprintf("%s, %s: %s", row.Name, s.Label, c.text(row.Unit, false)),
			}
			b.TextX = max(end, b.High) + 5
			if b.Left {
				b.TextX = min(end, b.Low) - 5
			}
			line.Bars = append(line.Bars, b)
			top += barHeight
		}
		line.Y = (y + rowGap/2 + top) / 2
		y = top + rowGap/2
		line.Line = y
		chart.Rows = append(chart.Rows, line)
	}
	chart.Height = y + 4
	return chart
}

// logScale maps low..high to from..to.
func logScale(low, high, from, to float64) func(float64) float64 {
	return func(v float64) float64 {
		return from + (to-from)*math.Log(v/low)/math.Log(high/low)
	}
}

// ratioTicks returns not too many round ratios between low and high, 1 among them.
func ratioTicks(low, high float64) (ticks []float64) {
	step := 2.0
	for math.Log(high/low)/math.Log(step) > 9 {
		step *= step
		if step == 16 {
			step = 10
		}
	}
	for exponent := math.Ceil(math.Log(low) / math.Log(step)); math.Pow(step, exponent) <= high; exponent++ {
		ticks = append(ticks, math.Pow(step, exponent))
	}
	return ticks
}

// lineChart shows a value over the number of layers, threads, or the like, a line for each server.
type lineChart struct {
	Title, Axis             string
	Width, Height           float64
	Left, Right, Top, Floor float64 // of the plot
	XTicks, YTicks          []tick
	Lines                   []line
}

type line struct {
	Series int
	Path   string
	Dots   []dot
}

type dot struct {
	X, Y  float64
	Title string
}

// lineCharts returns a chart for each curve of the regime.
func (r *Report) lineCharts(regime Regime) (charts []lineChart) {
	var names []string
	rows := map[string][]*Row{}
	for _, row := range r.Rows {
		if row.Regime != regime || row.Curve == nil {
			continue
		}
		name := row.Curve.Curve
		if row.Unit == "B" {
			name = "memory of the server after: " + name
		}
		if rows[name] == nil {
			names = append(names, name)
		}
		rows[name] = append(rows[name], row)
	}
	for _, name := range names {
		if len(rows[name]) > 1 {
			charts = append(charts, r.lineChart(name, rows[name]))
		}
	}
	return charts
}

func (r *Report) lineChart(title string, rows []*Row) lineChart {
	slices.SortFunc(rows, func(a, b *Row) int { return cmp.Compare(a.Curve.X, b.Curve.X) })
	chart := lineChart{Title: title, Axis: rows[0].Curve.Axis, Width: 470, Height: 300, Left: 64, Right: 458, Top: 12, Floor: 258}
	low, high := math.Inf(1), 0.0
	for _, row := range rows {
		for _, c := range row.Cells {
			if c.Value.Median > 0 {
				low, high = min(low, c.Value.Median), max(high, c.Value.Median)
			}
		}
	}
	low, high = low/1.3, high*1.3
	x := logScale(rows[0].Curve.X, rows[len(rows)-1].Curve.X, chart.Left+8, chart.Right-12)
	y := logScale(low, high, chart.Floor, chart.Top)
	last := math.Inf(-1)
	for _, row := range rows {
		t := tick{At: x(row.Curve.X)}
		if t.At-last > 30 { // else the numbers would touch
			t.Text, last = fmt.Sprint(row.Curve.X), t.At
		}
		chart.XTicks = append(chart.XTicks, t)
	}
	base := 1.0 // second
	if rows[0].Unit == "B" {
		base = 1 << 20
	}
	for t := base * math.Pow(10, math.Floor(math.Log10(low/base))); t <= high; t *= 10 {
		for _, m := range []float64{1, 2, 5} {
			few := high/low > 300 // then the powers of ten are enough
			if v := t * m; v >= low && v <= high && (m == 1 || !few) {
				chart.YTicks = append(chart.YTicks, tick{y(v), Quantity(v, rows[0].Unit)})
			}
		}
	}
	for series, s := range r.Servers {
		l := line{Series: series}
		for _, row := range rows {
			c := row.Cells[s.Label]
			if c == nil || c.Value.Median <= 0 {
				continue
			}
			d := dot{x(row.Curve.X), y(c.Value.Median), fmt.Sprintf("%s, %v %s: %s", s.Label, row.Curve.X, row.Curve.Axis, Quantity(c.Value.Median, row.Unit))}
			verb := "L"
			if len(l.Dots) == 0 {
				verb = "M"
			}
			l.Path += fmt.Sprintf("%s%.1f %.1f", verb, d.X, d.Y)
			l.Dots = append(l.Dots, d)
		}
		if len(l.Dots) > 0 {
			chart.Lines = append(chart.Lines, l)
		}
	}
	return chart
}
