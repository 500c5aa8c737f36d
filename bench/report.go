package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/unionfsd/unionfsd/bench/workload"
)

// Report is the result of one run. Its JSON form is read by [Load] and meant to be kept.
type Report struct {
	Version   int       `json:"version"` // of this format
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"`
	Machine   Machine   `json:"machine"`
	Scale     float64   `json:"scale"`
	Reference string    `json:"reference"` // the label of the server that ratios are to
	Servers   []Server  `json:"servers"`
	Rows      []*Row    `json:"rows"`
	Notes     []string  `json:"notes,omitempty"` // what was not measured, and why

	failed []error // of the notes, those that are faults of ours
}

// reportVersion is that of the format that this program writes.
const reportVersion = 1

// Row is one thing that was measured, in one regime, on all servers.
type Row struct {
	Name     string           `json:"name"`
	Workload string           `json:"workload"`
	Group    string           `json:"group"`
	Doc      string           `json:"doc"`
	Regime   Regime           `json:"regime"`
	Unit     string           `json:"unit"` // "s" or "B"; less is better
	Curve    *workload.Point  `json:"curve,omitempty"`
	Cells    map[string]*Cell `json:"cells"` // by label
}

// Cell is one row on one server.
type Cell struct {
	Samples []float64 `json:"samples"`
	Value   Stat      `json:"value"`
	Ratio   *Stat     `json:"ratio,omitempty"` // to the reference in the same round
	Ops     int       `json:"ops,omitempty"`

	// Medians, of rows that are steps. CPU is in seconds; Peak is the peak of the server's resident memory, in bytes.
	ClientCPU float64  `json:"client_cpu,omitempty"`
	ServerCPU float64  `json:"server_cpu,omitempty"`
	Peak      float64  `json:"peak,omitempty"`
	Counted   *Counted `json:"counted,omitempty"`

	rounds              []int // of each sample
	clientCPU, srv, rss []float64
}

// Counted is how often a server was asked, for one operation of the workload.
type Counted struct {
	Requests float64            `json:"requests"`
	ByCode   map[string]float64 `json:"by_code,omitempty"`
	Syscalls float64            `json:"syscalls"` // of the server
}

func newReport(cfg Config, dir string) *Report {
	r := &Report{Version: reportVersion, Started: time.Now(), Machine: thisMachine(dir), Scale: float64(cfg.Scale), Servers: cfg.Servers}
	for _, s := range cfg.Servers {
		if s.Missing != "" {
			continue
		}
		if r.Reference == "" || s.Kind == Kernel && r.server(r.Reference).Kind != Kernel {
			r.Reference = s.Label
		}
	}
	return r
}

func (r *Report) server(label string) *Server {
	for i := range r.Servers {
		if r.Servers[i].Label == label {
			return &r.Servers[i]
		}
	}
	return nil
}

// Measured returns the labels of the servers that were measured.
func (r *Report) Measured() []string {
	var labels []string
	for _, s := range r.Servers {
		if s.Missing == "" {
			labels = append(labels, s.Label)
		}
	}
	return labels
}

func (r *Report) cell(w workload.Workload, regime Regime, m measured, label string) *Cell {
	i := slices.IndexFunc(r.Rows, func(row *Row) bool { return row.Name == m.row && row.Regime == regime })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, &Row{
			Name: m.row, Workload: w.Name, Group: w.Group, Doc: w.Doc, Regime: regime, Unit: m.unit, Curve: m.curve,
			Cells: map[string]*Cell{},
		})
	}
	c := r.Rows[i].Cells[label]
	if c == nil {
		c = &Cell{}
		r.Rows[i].Cells[label] = c
	}
	return c
}

// add adds what one sample has measured.
func (r *Report) add(w workload.Workload, regime Regime, round int, label string, rows []measured, counting bool) {
	for _, m := range rows {
		c := r.cell(w, regime, m, label)
		if counting {
			if ops := float64(m.ops); m.step && ops > 0 && r.server(label).serves() {
				c.Counted = &Counted{Requests: float64(m.counts.requests) / ops, Syscalls: float64(m.counts.syscalls) / ops, ByCode: map[string]float64{}}
				for code, n := range m.counts.byCode {
					c.Counted.ByCode[code] = float64(n) / ops
				}
			}
			continue
		}
		c.Samples, c.rounds = append(c.Samples, m.value), append(c.rounds, round)
		if m.step {
			c.Ops = m.ops
			c.clientCPU, c.srv, c.rss = append(c.clientCPU, m.clientCPU), append(c.srv, m.serverCPU), append(c.rss, m.peak)
		}
	}
}

// fail notes that a server could not do a workload.
func (r *Report) fail(w workload.Workload, label string, err error) {
	err = fmt.Errorf("%s, %s: %w", label, w.Name, err)
	r.Notes = append(r.Notes, err.Error())
	if r.server(label).Kind == FUSE {
		r.failed = append(r.failed, err)
	}
}

// finish computes what is left of the samples.
func (r *Report) finish() {
	r.Seconds = time.Since(r.Started).Seconds()
	for _, row := range r.Rows {
		reference := row.Cells[r.Reference]
		for _, c := range row.Cells {
			c.Value = statOf(c.Samples)
			c.ClientCPU, c.ServerCPU, c.Peak = statOf(c.clientCPU).Median, statOf(c.srv).Median, statOf(c.rss).Median
			if ratios := pairs(c, reference); len(ratios) > 0 {
				s := statOf(ratios)
				c.Ratio = &s
			}
		}
	}
	r.spreadCounts()
}

// pairs returns the ratios of c to the reference, round by round.
func pairs(c, reference *Cell) (ratios []float64) {
	if reference == nil {
		return nil
	}
	for i, round := range c.rounds {
		if j := slices.Index(reference.rounds, round); j >= 0 && reference.Samples[j] > 0 {
			ratios = append(ratios, c.Samples[i]/reference.Samples[j])
		}
	}
	return ratios
}

// spreadCounts gives the counts, which were taken in one regime, to the other one as well: they do not depend on it.
// Rows of a counting round that no timed one followed are dropped.
func (r *Report) spreadCounts() {
	counted := map[string]*Counted{}
	for _, row := range r.Rows {
		for label, c := range row.Cells {
			key := row.Name + "\x00" + label
			if c.Counted != nil {
				counted[key] = c.Counted
			}
			c.Counted = counted[key]
			if len(c.Samples) == 0 {
				delete(row.Cells, label)
			}
		}
	}
	r.Rows = slices.DeleteFunc(r.Rows, func(row *Row) bool { return len(row.Cells) == 0 })
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Load reads what Save wrote.
func Load(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s is no report of unionfsd bench: %w", path, err)
	}
	if r.Version != reportVersion {
		return nil, fmt.Errorf("%s is a report in format %d, and this unionfsd reads format %d: use the unionfsd that wrote it", path, r.Version, reportVersion)
	}
	return &r, nil
}

// Err returns what unionfsd's own FUSE server could not do in this run: that is a fault, where others have limits.
func (r *Report) Err() error { return errors.Join(r.failed...) }
