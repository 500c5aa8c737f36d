package workload

import (
	"os"
	"path/filepath"
)

// treeTar is the archive of the source tree in the scratch directory.
const treeTar = "tree.tar"

// untar: installing a toolchain, or the dependencies of a project: thousands of small files, written once.
func init() {
	register(func() Workload {
		return Workload{
			Name: "untar", Group: "create",
			Doc: "tar xf of the Go source tree, 18,000 entries, and rm -rf of it",
			Layers: Recipe{Name: "tar", FromTree: true, Build: func(b *Builder) error {
				if _, err := b.Layer(); err != nil {
					return err
				}
				source := filepath.Join(b.Scratch, "tree")
				if err := os.Mkdir(source, 0o755); err != nil {
					return err
				}
				if err := copyTree(b.Tree, source, b.Scale.Of(treeEntries)); err != nil {
					return err
				}
				_, err := command(b.Scratch, nil, "tar", "cf", treeTar, "tree")
				return err
			}},
			Changes: true, Needs: []string{"tar", "rm"},
			Steps: []Step{{
				Name: "untar",
				Run: func(e *Env) (int, error) {
					if _, err := command(e.Dir, nil, "tar", "xf", filepath.Join(e.Scratch, treeTar)); err != nil {
						return 0, err
					}
					return e.Scale.Of(treeEntries), nil
				},
			}, {
				Name: "rm-untarred",
				Run: func(e *Env) (int, error) {
					if _, err := command(e.Dir, nil, "rm", "-rf", "tree"); err != nil {
						return 0, err
					}
					return e.Scale.Of(treeEntries), nil
				},
			}},
		}
	})

	// Removing a whole tree that a lower layer has: whiteouts, though one would do.
	register(func() Workload {
		return Workload{
			Name: "rm-lower", Group: "create",
			Doc:    "rm -rf of a source tree of a lower layer",
			Layers: tree, Changes: true, Needs: []string{"rm"},
			Steps: []Step{{
				Name: "rm-lower",
				Run: func(e *Env) (int, error) {
					top, err := os.ReadDir(e.Dir)
					if err != nil {
						return 0, err
					}
					args := []string{"-rf"}
					for _, entry := range top {
						args = append(args, entry.Name())
					}
					if _, err := command(e.Dir, nil, "rm", args...); err != nil {
						return 0, err
					}
					return e.Scale.Of(treeEntries), nil
				},
			}},
		}
	})
}
