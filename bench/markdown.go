package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// What WriteResults replaces lies between these lines; the rest of the file is written by hand.
const (
	resultsBegin = "<!-- begin: written by unionfsd bench -->"
	resultsEnd   = "<!-- end -->"
)

// WriteResults puts the tables of the report into a Markdown file, in place of those that are there. It makes the
// file if there is none.
func (r *Report) WriteResults(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("# Benchmark results\n\n"+resultsBegin+"\n"+resultsEnd+"\n"), nil
	}
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), resultsBegin)
	_, after, ended := strings.Cut(rest, resultsEnd)
	if !found || !ended {
		return fmt.Errorf("%s has no lines %q and %q between which to write: add them", path, resultsBegin, resultsEnd)
	}
	return os.WriteFile(path, []byte(before+resultsBegin+"\n"+r.markdown()+resultsEnd+after), 0o644)
}

func (r *Report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s.\n\n", r.Started.UTC().Format("2006-01-02"), r.Machine)
	for _, s := range r.Servers {
		switch {
		case s.Missing != "":
			fmt.Fprintf(&b, "- %s: %s, not measured\n", s.Label, s.Missing)
		case s.Version != "":
			fmt.Fprintf(&b, "- %s: %s\n", s.Label, s.Version)
		}
	}
	if r.Scale != 1 {
		fmt.Fprintf(&b, "\nSizes are %g of the real ones: these figures show that everything works, not how fast.\n", r.Scale)
	}
	for _, regime := range r.Regimes() {
		fmt.Fprintf(&b, "\n### %s: %s\n\nMedian; times %s of the same round, and half the width of the middle half of the rounds.\n\n",
			regime, regime.doc(), r.Reference)
		b.WriteString(r.times(regime).markdown())
		if costs := r.costs(regime); len(costs) > 1 {
			fmt.Fprintf(&b, "\n<details><summary>%s: CPU seconds of client + server, peak memory of the server, requests / system calls of the server for one operation</summary>\n\n", regime)
			b.WriteString(costs.markdown())
			b.WriteString("\n</details>\n")
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(&b, "\nWhat could not be measured:")
		fmt.Fprintln(&b)
		for _, note := range r.Notes {
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(note, "\n", "; "))
		}
	}
	return b.String()
}

// markdown writes the table, the first column to the left and the others to the right.
func (g grid) markdown() string {
	var b strings.Builder
	for i, line := range g {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|---|%s\n", strings.Repeat("---:|", len(line)-1))
		}
	}
	return b.String()
}
