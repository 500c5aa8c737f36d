package union

import (
	"runtime/debug"
	"sync"
)

// reclaim gives memory back to the system when much of it has become free at once: when the kernel has forgotten most of
// the nodes. Go by itself keeps it, to use it again, and takes minutes to give up what it does not.
var reclaim reclaimer

type reclaimer struct {
	mu      sync.Mutex
	running bool
	again   bool // more has become free meanwhile
}

// start begins to give back, and does not wait: it takes as long as to look at all that is left.
func (r *reclaimer) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again = r.running; !r.running {
		r.running = true
		go r.run()
	}
}

func (r *reclaimer) run() {
	for more := true; more; {
		debug.FreeOSMemory()
		r.mu.Lock()
		more, r.again = r.again, false
		r.running = more
		r.mu.Unlock()
	}
}
