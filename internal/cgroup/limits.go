package cgroup

import (
	"math"
	"strconv"
)

// Limits are what the processes in a group may use together. Zero is as much as there is.
type Limits struct {
	Memory int64   // bytes, without swap; as much again may be swapped out
	CPUs   float64 // 1.5 is the time of one and a half CPUs
	PIDs   int64   // processes and threads
}

// Any reports whether there is any limit.
func (l Limits) Any() bool { return l != Limits{} }

// setting is what is written to one file of a group.
type setting struct {
	controller, file, value string
	optional                bool // the kernel may not have it
}

// cpuPeriod is the time in which a group may use its share, in microseconds; it is the kernel's default.
const cpuPeriod = 100_000

func (l Limits) settings() []setting {
	var list []setting
	if l.Memory > 0 {
		bytes := strconv.FormatInt(l.Memory, 10)
		list = append(list, setting{controller: "memory", file: "memory.max", value: bytes},
			setting{controller: "memory", file: "memory.swap.max", value: bytes, optional: true})
	}
	if l.CPUs > 0 {
		quota := strconv.FormatInt(int64(math.Round(l.CPUs*cpuPeriod)), 10)
		list = append(list, setting{controller: "cpu", file: "cpu.max", value: quota + " " + strconv.Itoa(cpuPeriod)})
	}
	if l.PIDs > 0 {
		list = append(list, setting{controller: "pids", file: "pids.max", value: strconv.FormatInt(l.PIDs, 10)})
	}
	return list
}
