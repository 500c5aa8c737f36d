package workload

import "path/filepath"

// Scale is how much of the work is done: 1 is what the report is about.
type Scale float64

// Of returns the scaled n, but at least a few, for every path to be taken.
func (s Scale) Of(n int) int { return max(int(float64(n)*float64(s)), min(n, 4)) }

// Bytes returns the scaled size, of whole MiB.
func (s Scale) Bytes(mib int) int64 { return int64(max(int(float64(mib)*float64(s)), 1)) << 20 }

// Env is what a step knows of the place it runs in.
type Env struct {
	Dir     string   // the union
	Dirs    []string // all unions, of a workload with more than one
	Scratch string   // what the recipe has put aside, outside of the union
	Scale   Scale

	Values []Value // what the step reports besides its time
}

// Value is a row of its own: something measured by a step. Smaller is better.
type Value struct {
	Name string
	Unit string // "s" or "B"
	V    float64
}

// Report adds a row.
func (e *Env) Report(name, unit string, v float64) {
	e.Values = append(e.Values, Value{name, unit, v})
}

// path returns a path in the union.
func (e *Env) path(elem ...string) string {
	return filepath.Join(append([]string{e.Dir}, elem...)...)
}
