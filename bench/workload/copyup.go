package workload

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// appendByte opens the file for writing, which copies it up, and adds a byte to it.
func appendByte(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte{'x'})
	return err
}

// copyup: the first change of files that lower layers have. A union copies them first.
func init() {
	register(func() Workload {
		return Workload{
			Name: "copyup-small", Group: "copyup",
			Doc:    "append a byte to each of 2,000 small lower files",
			Layers: files, Changes: true,
			Steps: []Step{{
				Name: "copyup-small",
				Run:  func(e *Env) (int, error) { return forEach("append to", e.filePaths(2_000), appendByte) },
			}},
		}
	})
	register(func() Workload {
		return Workload{
			Name: "chmod-lower", Group: "copyup",
			Doc:    "chmod 2,000 lower files, as chmod -R in a Dockerfile does",
			Layers: files, Changes: true,
			Steps: []Step{{
				Name: "chmod-lower",
				Run: func(e *Env) (int, error) {
					return forEach("chmod", e.filePaths(2_000), func(path string) error { return unix.Chmod(path, 0o600) })
				},
			}},
		}
	})
	register(func() Workload {
		const count = 50
		name := func(i int) string { return fmt.Sprintf("file%02d", i) }
		return Workload{
			Name: "copyup-1m", Group: "copyup",
			Doc: "append a byte to each of 50 lower files of 1 MiB",
			Layers: Recipe{Name: "mib", Build: func(b *Builder) error {
				dir, err := b.Layer()
				for i := range b.Scale.Of(count) {
					if err == nil {
						err = writeNoise(filepath.Join(dir, name(i)), 1<<20)
					}
				}
				return err
			}},
			Changes: true,
			Steps: []Step{{
				Name: "copyup-1m",
				Run: func(e *Env) (int, error) {
					var paths []string
					for i := range e.Scale.Of(count) {
						paths = append(paths, e.path(name(i)))
					}
					return forEach("append to", paths, appendByte)
				},
			}},
		}
	})

	// One byte into a large file: a disk image, a database, a log. The kernel copies all of it first.
	register(byteInto("byte-1m", "1 MiB", 1, bigFile(1)))
	register(byteInto("byte-64m", "64 MiB", 64, bigFile(64)))
	register(byteInto("byte-1g", "1 GiB", 1024, bigFile(1024)))
	register(byteInto("byte-10g-sparse", "10 GiB of which nothing is written", 0, Recipe{Name: "sparse-10g", Build: func(b *Builder) error {
		dir, err := b.Layer()
		if err != nil {
			return err
		}
		path := filepath.Join(dir, "big")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, b.Scale.Bytes(10<<10))
	}}))
}

func byteInto(name, size string, mib int, layers Recipe) func() Workload {
	var point *Point
	if mib > 0 {
		point = &Point{Curve: "write one byte into a lower file", Axis: "MiB", X: float64(mib)}
	}
	return func() Workload {
		return Workload{
			Name: name, Group: "copyup",
			Doc:    "write one byte into the middle of a lower file of " + size,
			Layers: layers, Changes: true,
			Steps: []Step{{
				Name: name, Curve: point,
				Run: func(e *Env) (int, error) {
					fd, err := open(e.path("big"), unix.O_WRONLY, 0)
					if err != nil {
						return 0, err
					}
					defer unix.Close(fd)
					return 1, writeFull(fd, []byte{'x'}, e.Scale.Bytes(64)/2)
				},
			}},
		}
	}
}
