package workload

import "fmt"

// fio: a second witness for the data path, which shares no code with the other workloads.
func init() {
	register(func() Workload {
		run := func(name, mode string, mib int) Step {
			return Step{
				Name: name,
				Run: func(e *Env) (int, error) {
					size := e.Scale.Bytes(mib)
					_, err := command(e.Dir, nil, "fio", "--name=w", "--filename=fio.data", "--rw="+mode, "--bs=4k",
						fmt.Sprintf("--filesize=%d", e.Scale.Bytes(128)), fmt.Sprintf("--io_size=%d", size),
						"--ioengine=psync", "--invalidate=0", "--fallocate=none", "--randrepeat=1", "--output-format=terse")
					return int(size / 4096), err
				},
			}
		}
		write := run("fio-randwrite", "randwrite", 64)
		write.Before = func(e *Env) error { return writeNoise(e.path("fio.data"), e.Scale.Bytes(128)) }
		return Workload{
			Name: "fio", Group: "data",
			Doc:    "fio in a file of 128 MiB, 4 KiB at random: 64 MiB written, 256 MiB read",
			Layers: empty, Changes: true, Needs: []string{"fio"},
			Steps: []Step{write, run("fio-randread", "randread", 256)},
		}
	})
}
