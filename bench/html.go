package bench

import (
	_ "embed"
	"html/template"
	"io"
	"sync"
)

//go:embed report.html.tmpl
var htmlText string

var htmlTemplate = sync.OnceValue(func() *template.Template { return template.Must(template.New("report").Parse(htmlText)) })

// page is what the HTML report shows.
type page struct {
	*Report
	Legend  []legend
	Regimes []section
}

type legend struct {
	Label, Version, Missing string
	Series                  int
	Reference               bool
}

type section struct {
	Regime Regime
	Doc    string
	Bars   []barChart
	Lines  []lineChart
	Times  grid
	Costs  grid // empty if nothing has a server
}

// WriteHTML writes the report as one page that needs nothing else: no script, no font, no network.
func (r *Report) WriteHTML(w io.Writer) error {
	p := page{Report: r}
	for i, s := range r.Servers {
		p.Legend = append(p.Legend, legend{s.Label, s.Version, s.Missing, i, s.Label == r.Reference})
	}
	for _, regime := range r.Regimes() {
		s := section{Regime: regime, Doc: regime.doc(), Bars: r.barCharts(regime), Lines: r.lineCharts(regime), Times: r.times(regime)}
		if costs := r.costs(regime); len(costs) > 1 {
			s.Costs = costs
		}
		p.Regimes = append(p.Regimes, s)
	}
	return htmlTemplate().Execute(w, p)
}
