package bench

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// on runs f, and what f starts, on the CPUs of the regime. Only the calling thread is moved; processes that it starts
// stay where they were born.
func (r Regime) on(f func() error) error {
	if r != Pinned {
		return f()
	}
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	one.Set(lastCPU(&all))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	err := f()
	if back := unix.SchedSetaffinity(0, &all); back != nil {
		return fmt.Errorf("sched_setaffinity: %w", back)
	}
	return err
}

// lastCPU returns the CPU that interrupts and other processes are least likely to be on.
func lastCPU(set *unix.CPUSet) int {
	last := 0
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			last = cpu
		}
	}
	return last
}
