package workload

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// negative: the search for a header, a module or a program along a path. Most lookups of a build find nothing.
func init() {
	register(func() Workload {
		search := func(e *Env) (int, error) {
			return forEach("stat", e.missing(10_000), func(path string) error {
				if err := lstat(path); err != unix.ENOENT {
					return fmt.Errorf("want ENOENT, got %v", err)
				}
				return nil
			})
		}
		return Workload{
			Name: "negative", Group: "metadata",
			Doc:    "look up 10,000 names that are not there, twice, as the search of a header or a program does",
			Layers: files,
			Steps: []Step{
				{Name: "negative-first", Run: search},
				{Name: "negative-again", Run: search},
			},
		}
	})
}

// missing returns n names, scaled, that are not there, in the directories of the files recipe.
func (e *Env) missing(n int) []string {
	dirs := (e.Scale.Of(fileCount)-1)/(fileCount/fileDirs) + 1
	var paths []string
	for i := range e.Scale.Of(n) {
		paths = append(paths, e.path(fmt.Sprintf("dir%03d/missing%05d", i%dirs, i)))
	}
	return paths
}
