package union

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// gate is what requests pass before they are worked on. It is open, but while the union takes the place of another one
// or gives its own away: see handover.go.
//
// A request that is made to wait is read and not answered. Who made it sees no error, only a call that takes longer.
type gate struct {
	mode atomic.Int32 // a gateMode

	// How many requests are at work, without those about open files: of those that began in an even phase, and in an
	// odd one; see grace.
	active [2]atomic.Int64
	phase  atomic.Uint32

	mu      sync.Mutex
	changed chan struct{} // closed when mode changes
}

type gateMode int32

const (
	gateOpen gateMode = iota

	// gateDrain lets nobody open or look up anything, but all do what they must to be done with what they have open.
	gateDrain

	// gateClosed lets only those pass who read or write open files.
	gateClosed

	// gateRetired is gateClosed for good: what does not pass is refused, but lookups are answered. The kernel does not
	// take ESTALE for the last name of mkdir(2) and link(2) as a reason to look again (filename_create in
	// fs/namei.c); for what it does with the name next, it does.
	gateRetired
)

// class is what a request is about.
type class int8

const (
	aboutFile  class = iota // an open file, by its handle; or the connection as a whole
	lookup                  // a name that is looked up
	aboutNames              // the names of an open directory
	aboutName               // a name that is changed, or what it names is opened
	aboutNode               // an object, by its node id: the caller may have got there by its name or by a descriptor
	aboutOther              // taking back another request
)

var classes = func() (list [64]class) {
	for op, name := range Operations {
		switch name {
		case "lookup":
			list[op] = lookup
		case "readdir", "readdirplus":
			list[op] = aboutNames
		case "symlink", "mknod", "mkdir", "unlink", "rmdir", "rename", "link", "open", "opendir", "create", "rename2", "tmpfile":
			list[op] = aboutName
		case "getattr", "setattr", "readlink", "setxattr", "getxattr", "listxattr", "removexattr", "access", "ioctl", "statx":
			list[op] = aboutNode
		case "interrupt":
			list[op] = aboutOther
		}
	}
	return list
}()

func classOf(m *transport.Message) class {
	if op := m.Op(); op < uint32(len(classes)) {
		return classes[op]
	}
	return aboutFile
}

func (m gateMode) admits(c class) bool {
	switch m {
	case gateOpen:
		return true
	case gateDrain:
		return c == aboutNode || c == aboutNames
	default:
		return false
	}
}

func newGate(mode gateMode) *gate {
	g := &gate{changed: make(chan struct{})}
	g.mode.Store(int32(mode))
	return g
}

// ticket is what a request gets that passes the gate, and gives back when it was answered.
type ticket int

const noTicket ticket = -1 // of a request that is not counted

// enter returns when a request of class c may be worked on. It returns false if it never may be. If it may be, leave
// must follow.
func (g *gate) enter(c class) (ticket, bool) {
	for {
		t := ticket(g.phase.Load() % 2)
		g.active[t].Add(1) // before the mode is looked at: who changes it looks at this next
		mode := gateMode(g.mode.Load())
		if mode.admits(c) {
			return t, true
		}
		g.leave(t)
		if mode == gateRetired {
			return noTicket, false
		}
		g.mu.Lock()
		changed := g.changed
		same := gateMode(g.mode.Load()) == mode
		g.mu.Unlock()
		if same {
			<-changed
		}
	}
}

func (g *gate) leave(t ticket) {
	if t != noTicket {
		g.active[t].Add(-1)
	}
}

// count is how many requests are at work, but for those about open files.
func (g *gate) count() int64 { return g.active[0].Load() + g.active[1].Load() }

// graceTick is how often grace looks.
const graceTick = 100 * time.Microsecond

// grace returns when every request that was at work has been left, and reports whether there was any. Who comes
// meanwhile is not waited for. Two changes of phase, since a request may have read the phase long before it is counted
// in it, as in the kernel's SRCU. One caller at a time.
func (g *gate) grace() (waited bool) {
	for range 2 {
		old := g.phase.Add(1) - 1
		for g.active[old%2].Load() > 0 {
			waited = true
			time.Sleep(graceTick)
		}
	}
	return waited
}

func (g *gate) set(mode gateMode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode.Store(int32(mode))
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) is(mode gateMode) bool { return gateMode(g.mode.Load()) == mode }

// idle waits until no request is at work but those about open files.
func (g *gate) idle(ctx context.Context) error {
	return poll(ctx, func() bool { return g.count() == 0 })
}

// poll waits until done.
func poll(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Microsecond):
		}
	}
	return nil
}
