package transport

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lookout decides how many threads wait for requests on /dev/fuse: one, as long as that is enough.
//
// Of several threads that wait, the kernel wakes up the one that has waited longest, whose memory is in no cache any
// more; and what the kernel asks for in order, reading ahead, several threads answer out of order, which is what makes the
// file system below read ahead no more. So one thread takes a request, answers it and takes the next. What that lacks is told
// by looking, every millisecond while there is something to do: whether a request takes so long that another thread has
// to take its place, and whether more come than one thread can answer.
type lookout struct {
	conn    *Conn
	waiting atomic.Int32  // threads that wait for a request
	enough  atomic.Int32  // how many may wait; those beyond end
	taken   atomic.Uint64 // requests

	dozes atomic.Bool // until somebody knocks
	knock chan struct{}
	over  chan struct{} // closed when the connection has ended
	leave sync.Once     // closes over
}

const (
	// lookEvery is how long a request may hold up others at most.
	lookEvery = time.Millisecond
	// crowdLooks is how many looks in a row have to find requests that wait, until there is to be one thread more.
	crowdLooks = 8
	// calmLooks is how many looks in a row have to find none, until there is to be one less.
	calmLooks = 64
	// followLooks is after how many looks it is looked where the callers are.
	followLooks = 4
	// idleLooks is how many looks in a row without a request are followed by none.
	idleLooks = 16
)

func newLookout(c *Conn) *lookout {
	l := &lookout{conn: c, knock: make(chan struct{}, 1), over: make(chan struct{})}
	l.enough.Store(1)
	return l
}

// begin notes that a thread which waited has taken a request.
func (l *lookout) begin() {
	l.taken.Add(1)
	l.waiting.Add(-1)
	if l.dozes.Load() && l.dozes.CompareAndSwap(true, false) {
		l.knock <- struct{}{}
	}
}

// end notes that a thread has answered its request, and reports whether it is to wait for the next.
func (l *lookout) end() bool {
	if l.waiting.Add(1) <= l.enough.Load() {
		return true
	}
	l.waiting.Add(-1)
	return false
}

// close ends the looking.
func (l *lookout) close() { l.leave.Do(func() { close(l.over) }) }

// run looks until the connection has ended.
func (l *lookout) run() {
	var last, followed uint64 // requests taken at the last look, and when the follower looked
	var stuck, idle streak
	crowd := crowd{most: int32(runtime.NumCPU()) + 1}
	var turn turn
	for look := 0; !l.ended(); turn.next() {
		pause(lookEvery)
		taken := l.taken.Load()
		quiet, allBusy := taken == last, l.waiting.Load() == 0
		last = taken
		for range stuck.count(quiet && allBusy) { // the more the longer it goes on: a burst of slow ones
			l.conn.grow()
		}
		if n := crowd.look(allBusy && l.queued()); n > l.enough.Swap(n) {
			l.conn.grow()
		}
		if look++; look%followLooks == 0 {
			l.conn.follow.look(taken-followed, crowd.extra == 0)
			followed = taken
		}
		if idle.count(quiet && !allBusy) >= idleLooks {
			l.doze(last)
			idle = 0
		}
	}
}

// streak is how many times in a row something was so.
type streak int

func (s *streak) count(so bool) streak {
	if *s++; !so {
		*s = 0
	}
	return *s
}

// crowd makes what looks have found the number of threads that are to wait for requests.
type crowd struct {
	most            int32 // at most so many: more would only compete for the CPUs
	extra           int32 // besides the first
	queued, drained streak
}

func (c *crowd) look(queued bool) int32 {
	if n := c.queued.count(queued); n > 0 && n%crowdLooks == 0 {
		c.extra = min(c.extra+1, c.most-1)
	}
	if n := c.drained.count(!queued); n > 0 && n%calmLooks == 0 {
		c.extra = max(c.extra-1, 0)
	}
	return 1 + c.extra
}

// queued reports whether requests wait for a thread.
func (l *lookout) queued() bool {
	fds := []unix.PollFd{{Fd: int32(l.conn.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents == unix.POLLIN
}

// doze returns when a request is taken after the first taken ones.
func (l *lookout) doze(taken uint64) {
	l.dozes.Store(true)
	if l.taken.Load() != taken && l.dozes.CompareAndSwap(true, false) {
		return
	}
	select {
	case <-l.knock:
	case <-l.over:
	}
}

func (l *lookout) ended() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}
