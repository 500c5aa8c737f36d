package workload

import "golang.org/x/sys/unix"

// open-close: what a round trip of OPEN and RELEASE costs, on 10,000 files that were looked up before.
func init() {
	register(func() Workload {
		return Workload{
			Name: "open-close", Group: "metadata",
			Doc:    "open and close 10,000 files",
			Layers: files,
			Steps: []Step{{
				Name: "open-close",
				Before: func(e *Env) error {
					_, err := walk(e.Dir, lstatAt)
					return err
				},
				Run: func(e *Env) (int, error) {
					return forEach("open", e.filePaths(fileCount), func(path string) error {
						fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
						if err != nil {
							return err
						}
						return unix.Close(fd)
					})
				},
			}},
		}
	})
}
