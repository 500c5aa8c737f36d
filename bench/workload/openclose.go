package workload

import "golang.org/x/sys/unix"

func init() {
	// open-close: what a round trip of OPEN and RELEASE costs, on 10,000 files that were looked up before.
	register(func() Workload {
		return Workload{
			Name: "open-close", Group: "metadata",
			Doc:    "open and close 10,000 files",
			Layers: files,
			Steps:  []Step{{Name: "open-close", Before: lookUpAll, Run: openClose}},
		}
	})

	// open-fixed: the same of a toolchain or an image that is only looked at, and their reading.
	register(func() Workload {
		return Workload{
			Name: "open-fixed", Group: "metadata",
			Doc:    "open and close 10,000 files of a union that is only read, read them, and read them again",
			Layers: files,
			Fixed:  true,
			Steps: []Step{
				{Name: "open-fixed", Before: lookUpAll, Run: openClose},
				{Name: "read-fixed", Run: readFiles},
				{Name: "read-fixed-again", Run: readFiles},
			},
		}
	})
}

func lookUpAll(e *Env) error {
	_, err := walk(e.Dir, lstatAt)
	return err
}

func openClose(e *Env) (int, error) {
	return forEach("open", e.filePaths(fileCount), func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func readFiles(e *Env) (int, error) {
	buf := make([]byte, 16<<10)
	return forEach("read", e.filePaths(fileCount), func(path string) error {
		_, err := readFile(path, buf)
		return err
	})
}
