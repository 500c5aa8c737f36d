package transport

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// follower keeps the thread that answers requests on the CPU of who makes them.
//
// The kernel wakes up a thread on an idle CPU if there is one, which is right for two that work at the same time. But who makes
// a request does nothing until it is answered, so that another CPU is woken up for each request, and the first one again
// for each answer: 20 to 100 microseconds, where to stay takes 10. That is different for large reads and writes, which the
// kernel makes ahead or behind: they are answered while their caller works.
//
// It helps where the CPUs have something to do. Where another one is idle, the kernel wakes up the caller there, away from the
// thread that answers, whatever that does; only over io_uring it leaves the caller where it is.
//
// Only one thread follows, as long as one is enough: see lookout.
type follower struct {
	allowed unix.CPUSet
	alone   bool // there is one CPU, and so nothing to choose

	caller atomic.Uint32 // thread that has made the last request
	bulk   atomic.Uint64 // requests that carried much
	cpu    atomic.Int32  // where the thread is to be; anywhere if it is anyCPU

	// The rest is of the one who looks.
	seen     int32 // where the caller was at the last look
	lastBulk uint64
}

const (
	anyCPU = -1

	// bulkSize is from how many bytes on a request carries much.
	bulkSize = 16 << 10
)

func newFollower() *follower {
	f := &follower{seen: anyCPU}
	f.cpu.Store(anyCPU)
	f.alone = unix.SchedGetaffinity(0, &f.allowed) != nil || f.allowed.Count() == 1
	return f
}

// note takes note of a request and its answer of n bytes.
func (f *follower) note(caller uint32, size int) {
	if caller != 0 && f.caller.Load() != caller { // 0: it is in no namespace of ours, or nobody waits for the answer
		f.caller.Store(caller)
	}
	if size >= bulkSize {
		f.bulk.Add(1)
	}
}

// look decides where the thread is to be, after so many requests since the last look. may says whether it may follow.
func (f *follower) look(requests uint64, may bool) {
	if f.alone || requests == 0 { // whoever comes next is likely to be the same
		return
	}
	bulk := f.bulk.Load()
	much := (bulk-f.lastBulk)*8 > requests
	f.lastBulk = bulk
	if !may || much {
		f.cpu.Store(anyCPU)
		f.seen = anyCPU
		return
	}
	cpu, ok := cpuOf(f.caller.Load())
	if !ok || !f.allowed.IsSet(int(cpu)) {
		return
	}
	if cpu == f.seen { // not to one that moves, or to several in turn
		f.cpu.Store(cpu)
	}
	f.seen = cpu
}

// cpuOf returns the CPU of a thread. It fails if there is no such thread any more.
func cpuOf(thread uint32) (int32, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", thread))
	if err != nil {
		return 0, false
	}
	return processor(text)
}

// processor reads the CPU from /proc/PID/stat: the 39th field, the second being a name in parentheses that may contain
// anything.
func processor(stat []byte) (int32, bool) {
	const after = 39 - 3
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= after {
		return 0, false
	}
	cpu, err := strconv.ParseInt(string(fields[after]), 10, 32)
	return int32(cpu), err == nil
}

// place moves the calling thread to where it is to be, and returns where it is, as before it was.
func (f *follower) place(at int32) int32 {
	to := f.cpu.Load()
	if to == at {
		return at
	}
	set := f.allowed
	if to != anyCPU {
		set.Zero()
		set.Set(int(to))
	}
	if unix.SchedSetaffinity(0, &set) != nil { // the CPU is gone, or we may not use it any more
		return at
	}
	return to
}

// leave lets the calling thread be anywhere again.
func (f *follower) leave(at int32) {
	if at != anyCPU {
		_ = unix.SchedSetaffinity(0, &f.allowed)
	}
}
