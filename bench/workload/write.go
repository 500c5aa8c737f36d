package workload

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// write: downloads and compilers write large files from start to end; databases and virtual machines write anywhere;
// logs grow by small appends; mail servers and databases sync each small write.
func init() {
	register(func() Workload {
		// pages writes count pages to the file, where the n-th goes is up to at.
		pages := func(e *Env, flags, count int, at func(n int) int64) (int, error) {
			fd, err := open(e.path("new"), unix.O_WRONLY|flags, 0o644)
			if err != nil {
				return 0, err
			}
			defer unix.Close(fd)
			page := noise(4096, 2)
			for n := range count {
				if err := writeFull(fd, page, at(n)); err != nil {
					return 0, wrap("write", "new", err)
				}
			}
			return count, nil
		}
		return Workload{
			Name: "write", Group: "data",
			Doc:    "write a new file of 512 MiB, pages of 4 KiB in order and at random, appends, and small writes with fsync",
			Layers: empty, Changes: true,
			Steps: []Step{{
				Name: "seq-write",
				Run: func(e *Env) (int, error) {
					fd, err := open(e.path("new"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
					if err != nil {
						return 0, err
					}
					defer unix.Close(fd)
					chunk, size := noise(1<<20, 1), e.Scale.Bytes(bigMiB)
					for at := int64(0); at < size; at += int64(len(chunk)) {
						if err := writeFull(fd, chunk, at); err != nil {
							return 0, wrap("write", "new", err)
						}
					}
					return int(size >> 20), nil
				},
			}, {
				Name: "write-4k",
				Run: func(e *Env) (int, error) {
					return pages(e, 0, e.Scale.Of(20_000), func(n int) int64 { return int64(n) * 4096 })
				},
			}, {
				Name: "rand-write",
				Run: func(e *Env) (int, error) {
					random := rand.New(rand.NewPCG(3, 1))
					return pages(e, 0, e.Scale.Of(20_000), func(int) int64 { return random.Int64N(e.Scale.Bytes(bigMiB)/4096) * 4096 })
				},
			}, {
				Name: "rand-write-4t",
				Run: func(e *Env) (int, error) {
					return parallel(4, func(i int) (int, error) {
						random := rand.New(rand.NewPCG(4, uint64(i)))
						return pages(e, 0, e.Scale.Of(20_000)/4, func(int) int64 { return random.Int64N(e.Scale.Bytes(bigMiB)/4096) * 4096 })
					})
				},
			}, {
				Name: "append-4k",
				Run: func(e *Env) (int, error) {
					fd, err := open(e.path("log"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
					if err != nil {
						return 0, err
					}
					defer unix.Close(fd)
					line, count := noise(4096, 5), e.Scale.Of(20_000)
					for range count {
						if _, err := unix.Write(fd, line); err != nil {
							return 0, wrap("append to", "log", err)
						}
					}
					return count, nil
				},
			}, {
				Name: "fsync-4k",
				Run: func(e *Env) (int, error) {
					fd, err := open(e.path("journal"), unix.O_CREAT|unix.O_WRONLY, 0o644)
					if err != nil {
						return 0, err
					}
					defer unix.Close(fd)
					line, count := noise(4096, 6), e.Scale.Of(300)
					for n := range count {
						if err := writeFull(fd, line, int64(n)*4096); err != nil {
							return 0, wrap("write", "journal", err)
						}
						if err := unix.Fsync(fd); err != nil {
							return 0, wrap("fsync", "journal", err)
						}
					}
					return count, nil
				},
			}},
		}
	})
}
