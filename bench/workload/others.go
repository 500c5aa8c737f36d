package workload

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// copyup-others: what everybody else in a container waits for while somebody's first write copies 1 GiB.
func init() {
	register(func() Workload {
		return Workload{
			Name: "copyup-others", Group: "copyup",
			Doc:    "latency of create, stat and unlink of other files while 1 GiB is copied up",
			Layers: bigFile(1024), Changes: true,
			Steps: []Step{{
				Name: "copyup-others", Untimed: true,
				Run: func(e *Env) (int, error) {
					copied := make(chan error, 1)
					go func() { copied <- appendByte(e.path("big")) }()
					latencies, err := latencyUntil(e, copied)
					if err != nil {
						return 0, err
					}
					slices.Sort(latencies)
					n := len(latencies)
					e.Report("others-median", "s", latencies[n/2].Seconds())
					e.Report("others-p99", "s", latencies[n*99/100].Seconds())
					e.Report("others-max", "s", latencies[n-1].Seconds())
					return n, nil
				},
			}},
		}
	})
}

// latencyUntil creates, stats and removes files, one after the other, until done says something, and at least some.
func latencyUntil(e *Env, done <-chan error) (latencies []time.Duration, err error) {
	finished := false
	for i := 0; i < 100 || !finished; i++ {
		select {
		case err := <-done:
			if err != nil {
				return nil, fmt.Errorf("copy up: %w", err)
			}
			finished = true
		default:
		}
		begin := time.Now()
		path := e.path(fmt.Sprintf("other%d", i))
		fd, err := open(path, unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		if err := unix.Close(fd); err != nil {
			return nil, wrap("close", path, err)
		}
		if err := lstat(path); err != nil {
			return nil, wrap("stat", path, err)
		}
		if err := unix.Unlink(path); err != nil {
			return nil, wrap("unlink", path, err)
		}
		latencies = append(latencies, time.Since(begin))
	}
	return latencies, nil
}
