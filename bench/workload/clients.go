package workload

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// clients: a build with many jobs: every thread looks at other files at the same time.
func init() {
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		register(func() Workload {
			return Workload{
				Name: fmt.Sprintf("clients-%d", n), Group: "scale",
				Doc:    fmt.Sprintf("%d threads stat, open, read and close 10,000 files, each its own share", n),
				Layers: files,
				Steps: []Step{{
					Name: fmt.Sprintf("clients-%d", n), Curve: &Point{Curve: "stat and read 10,000 files", Axis: "threads", X: float64(n)},
					Run: func(e *Env) (int, error) {
						paths := e.filePaths(fileCount)
						return parallel(n, func(i int) (int, error) {
							buf := make([]byte, 16<<10)
							share := paths[len(paths)*i/n : len(paths)*(i+1)/n]
							return forEach("read", share, func(path string) error {
								if err := lstat(path); err != nil {
									return err
								}
								_, err := readFile(path, buf)
								return err
							})
						})
					},
				}},
			}
		})
	}

	// million: a file server, or a node_modules of every project. What it costs to have seen a million files, and
	// whether it is given back.
	register(func() Workload {
		const dirs = 1_000
		return Workload{
			Name: "million", Group: "scale",
			Doc: "find over a million files: time, memory of the server after it, and after the kernel has dropped its caches",
			Layers: Recipe{Name: "million", Build: func(b *Builder) error {
				dir, err := b.Layer()
				for i := range b.Scale.Of(dirs) {
					if err == nil {
						err = makeEmpty(fmt.Sprintf("%s/dir%04d", dir, i), 1_000)
					}
				}
				return err
			}},
			Steps: []Step{{
				Name: "million-find", Cold: true, Memory: "million-memory",
				Run: func(e *Env) (int, error) { return walk(e.Dir, lstatAt) },
			}, {
				Name: "million-drop", Cold: true, Untimed: true, Memory: "million-memory-dropped",
				Run: func(e *Env) (int, error) {
					// The kernel tells what it has forgotten in requests that nobody waits for. They are before this one.
					var st unix.Statfs_t
					return 1, unix.Statfs(e.Dir, &st)
				},
			}},
		}
	})
}
