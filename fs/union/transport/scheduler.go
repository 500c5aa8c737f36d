package transport

import (
	"runtime"
	"sync"
	"time"
)

// The Go scheduler lends each running thread one of GOMAXPROCS processors. A thread that has been in a system call for
// longer than its monitor (sysmon) has patience is robbed of its processor, and has to look for another when it comes
// back, with the help of other threads that are woken up for it. For a thread that waits for requests that is most of
// the time, and it cost more than the requests. Two things make the monitor patient for 10 ms instead of 20 us (retake in
// runtime/proc.go): that there is a processor that nobody uses, and that the thread is seen to pass through the scheduler.

// spareProcessors is how many processors there are to be besides one for each CPU: for a thread that waits for
// requests, for the lookout, and one that nobody uses.
const spareProcessors = 3

var addSpareProcessors = sync.OnceFunc(func() {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcessors)
})

// turn is what a thread that seldom passes through the scheduler has of its own: when it did last.
type turn time.Duration

var epoch = time.Now()

// next lets the thread pass through the scheduler if that is due, since it is not for nothing.
func (t *turn) next() {
	const due = 5 * time.Millisecond // half of what the monitor takes for too long
	if now := turn(time.Since(epoch)); now-*t > turn(due) {
		runtime.Gosched()
		*t = now
	}
}
