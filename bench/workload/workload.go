package workload

import (
	"fmt"
	"slices"
	"strings"
)

// Groups of workloads, in the order of the report.
var Groups = []string{"metadata", "create", "data", "copyup", "depth", "real", "scale"}

// Workload is something that people do in a union.
type Workload struct {
	Name  string
	Group string // one of Groups
	Doc   string // what it stands for, one line

	Layers  Recipe
	Fixed   bool     // in a union without an upper layer, of layers that nobody changes
	Changes bool     // it writes to what is in the lower layers: the bare directory must be a copy
	Needs   []string // programs that it runs
	Mounts  int      // unions over the same layers at the same time; 0 is one
	Mount   string   // the name of the row with the time to mount; empty for none
	Curve   *Point   // of the time to mount
	Steps   []Step
}

// Step is a part of a workload that is timed.
type Step struct {
	Name    string // of the row in the report; unique
	Cold    bool   // drop the kernel's caches before it
	Untimed bool   // it has only the rows that it reports, or those asked for below

	Before func(*Env) error        // what has to be there, not timed; may be nil
	Run    func(*Env) (int, error) // what is timed; returns the number of operations

	PlusMount bool   // its time includes that of mounting
	Memory    string // the name of a row with the daemon's memory after it; empty for none
	PageCache string // the name of a row with what it added to the page cache; empty for none
	Curve     *Point
}

// Point places a row on a curve.
type Point struct {
	Curve string  // its name: what is done
	Axis  string  // what X counts
	X     float64 // such as the number of layers
}

var all []func() Workload

// register adds a workload. It is a function, since its steps share variables: they are those of one run.
func register(w func() Workload) { all = append(all, w) }

// All returns all workloads by group, in the order of the files that they are in.
func All() []Workload {
	var list []Workload
	for _, make := range all {
		list = append(list, make())
	}
	slices.SortStableFunc(list, func(a, b Workload) int {
		return slices.Index(Groups, a.Group) - slices.Index(Groups, b.Group)
	})
	return list
}

// ByName returns a workload to run.
func ByName(name string) (Workload, bool) {
	for _, w := range All() {
		if w.Name == name {
			return w, true
		}
	}
	return Workload{}, false
}

// Select returns the workloads that names ask for: groups, workloads, or rows of the report. No name means all.
func Select(names []string) ([]Workload, error) {
	list := All()
	if len(names) == 0 {
		return list, nil
	}
	chosen := map[string]bool{}
	for _, name := range names {
		found := false
		for _, w := range list {
			if name == w.Group || name == w.Name || slices.Contains(w.rows(), name) {
				chosen[w.Name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("unknown workload %q: name one of the groups %s, or one of those that bench --list shows", name, strings.Join(Groups, ", "))
		}
	}
	return slices.DeleteFunc(list, func(w Workload) bool { return !chosen[w.Name] }), nil
}

// rows returns the names of the rows that are known before it runs.
func (w Workload) rows() []string {
	var names []string
	for _, s := range w.Steps {
		names = append(names, s.Name)
	}
	return names
}
