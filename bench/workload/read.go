package workload

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// bigMiB is the size of the file that is read and written as one.
const bigMiB = 512

// read-small: a compiler or a linter reads all of a source tree.
func init() {
	register(func() Workload {
		read := func(e *Env) (int, error) {
			buf := make([]byte, 128<<10)
			return walk(e.Dir, func(dirfd int, dir, name string, kind uint8) error {
				if kind != unix.DT_REG {
					return nil
				}
				_, err := readFile(dir+"/"+name, buf)
				return err
			})
		}
		return Workload{
			Name: "read-small", Group: "data",
			Doc:    "read all files of a source tree, as grep -r does",
			Layers: tree,
			Steps: []Step{
				{Name: "read-small-cold", Cold: true, Run: read},
				{Name: "read-small-warm", Run: read},
			},
		}
	})

	// read-big: a disk image, a model, a database that is scanned, or looked into here and there.
	register(func() Workload {
		sequential := func(threads int) func(e *Env) (int, error) {
			return func(e *Env) (int, error) {
				size := e.Scale.Bytes(bigMiB)
				return parallel(threads, func(i int) (int, error) {
					part := size / int64(threads)
					return readRange(e.path("big"), int64(i)*part, part)
				})
			}
		}
		random := func(threads int) func(e *Env) (int, error) {
			return func(e *Env) (int, error) {
				return parallel(threads, func(i int) (int, error) {
					return readRandom(e.path("big"), e.Scale.Bytes(bigMiB), e.Scale.Of(200_000)/threads, uint64(i))
				})
			}
		}
		point := func(threads float64) *Point {
			return &Point{Curve: "read 512 MiB at random places, warm", Axis: "threads", X: threads}
		}
		return Workload{
			Name: "read-big", Group: "data",
			Doc:    "read a file of 512 MiB: all of it, 4 KiB at random places, through a mapping; 1 and 4 threads",
			Layers: bigFile(bigMiB),
			Steps: []Step{
				{Name: "seq-read-cold", Cold: true, Run: sequential(1)},
				{Name: "seq-read", Run: sequential(1)},
				{Name: "seq-read-4t", Run: sequential(4)},
				{Name: "rand-read", Run: random(1), Curve: point(1)},
				{Name: "rand-read-4t", Run: random(4), Curve: point(4)},
				{Name: "rand-read-cold", Cold: true, Run: func(e *Env) (int, error) {
					return readRandom(e.path("big"), e.Scale.Bytes(bigMiB), e.Scale.Of(2_000), 9)
				}},
				{Name: "mmap-read", Run: readMapped},
				{Name: "mmap-read-cold", Cold: true, Run: readMapped},
			},
		}
	})
}

// readRange reads a part of a file, 128 KiB at a time, and returns how often it had to.
func readRange(path string, from, length int64) (int, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 128<<10)
	count := 0
	for end := from + length; from < end; count++ {
		n, err := unix.Pread(fd, buf[:min(int64(len(buf)), end-from)], from)
		if err != nil {
			return 0, wrap("read", path, err)
		}
		if n == 0 {
			return 0, fmt.Errorf("%s ends at %d, before %d", path, from, end)
		}
		from += int64(n)
	}
	return count, nil
}

// readRandom reads count pages of 4 KiB anywhere in the file.
func readRandom(path string, size int64, count int, seed uint64) (int, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	random := rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 4096)
	for range count {
		if n, err := unix.Pread(fd, buf, random.Int64N(size/4096)*4096); err != nil || n != len(buf) {
			return 0, fmt.Errorf("read %s: %d bytes, %v", path, n, err)
		}
	}
	return count, nil
}

// readMapped touches each page of the file through a mapping, as a linker does with libraries.
func readMapped(e *Env) (int, error) {
	path := e.path("big")
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	size := int(e.Scale.Bytes(bigMiB))
	m, err := syscall.Mmap(fd, 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return 0, wrap("mmap", path, err)
	}
	sum := byte(0)
	for at := 0; at < size; at += 4096 {
		sum ^= m[at]
	}
	runtime.KeepAlive(sum) // else the loop could be dropped
	return size / 4096, syscall.Munmap(m)
}
