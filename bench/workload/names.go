package workload

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// names: builds and package managers make, rename and remove thousands of files, in a directory that a lower layer
// has too.
func init() {
	register(func() Workload {
		const count = 5_000
		paths := func(e *Env, prefix string) []string {
			var list []string
			for i := range e.Scale.Of(count) {
				list = append(list, e.path(fmt.Sprintf("dir000/%s%05d", prefix, i)))
			}
			return list
		}
		return Workload{
			Name: "names", Group: "create",
			Doc:    "create, rename and unlink 5,000 files, mkdir and rmdir 5,000 directories",
			Layers: files, Changes: true,
			Steps: []Step{{
				Name: "create",
				Run: func(e *Env) (int, error) {
					return forEach("create", paths(e, "a"), func(path string) error {
						fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
						if err != nil {
							return err
						}
						return unix.Close(fd)
					})
				},
			}, {
				Name: "rename",
				Run: func(e *Env) (int, error) {
					to := paths(e, "b")
					i := -1
					return forEach("rename", paths(e, "a"), func(path string) error {
						i++
						return unix.Rename(path, to[i])
					})
				},
			}, {
				Name: "unlink",
				Run:  func(e *Env) (int, error) { return forEach("unlink", paths(e, "b"), unix.Unlink) },
			}, {
				Name: "mkdir",
				Run: func(e *Env) (int, error) {
					return forEach("mkdir", paths(e, "d"), func(path string) error { return unix.Mkdir(path, 0o755) })
				},
			}, {
				Name: "rmdir",
				Run:  func(e *Env) (int, error) { return forEach("rmdir", paths(e, "d"), unix.Rmdir) },
			}},
		}
	})

	// Removing what a lower layer has leaves a whiteout for each name.
	register(func() Workload {
		return Workload{
			Name: "unlink-lower", Group: "create",
			Doc:    "unlink 2,000 files of a lower layer: a whiteout each",
			Layers: files, Changes: true,
			Steps: []Step{{
				Name: "unlink-lower",
				Run:  func(e *Env) (int, error) { return forEach("unlink", e.filePaths(2_000), unix.Unlink) },
			}},
		}
	})
}
