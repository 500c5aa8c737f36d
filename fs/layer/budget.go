package layer

import (
	"sync"

	"golang.org/x/sys/unix"
)

// budget bounds how many directories of one stack are open at a time. The kernel may know any number of directories of
// a union, but a process may have only so many descriptors. So a directory that has not been used for a while is
// closed, and opened again by its name in its parent when it is needed.
type budget struct {
	limit int // of open directories, those that are never closed not counted

	mu   sync.Mutex
	ring []*Dir // directories with a descriptor that may be closed
	hand int    // where the clock algorithm goes on
}

// newBudget leaves half of what the process may open to files, pins and all the rest.
func newBudget() *budget {
	const least = 64
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur/2 < least {
		return &budget{limit: least}
	}
	return &budget{limit: int(min(lim.Cur/2, 1<<20))}
}

// opened accounts for d, which has a descriptor now, and closes another directory if there are too many.
//
// Precondition: d.mu is held. So only directories whose lock is free are considered.
func (b *budget) opened(d *Dir) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.slot = len(b.ring)
	b.ring = append(b.ring, d)
	if len(b.ring) <= b.limit {
		return
	}
	// Twice around finds one if there is one: the first time takes away the marks of recent use.
	for range 2 * len(b.ring) {
		b.hand = (b.hand + 1) % len(b.ring)
		if victim := b.ring[b.hand]; victim != d && b.evict(victim) {
			return
		}
	}
}

// evict closes v if nobody uses it and nobody has since the hand was here last.
func (b *budget) evict(v *Dir) bool {
	if !v.mu.TryLock() {
		return false
	}
	defer v.mu.Unlock()
	if v.users > 0 {
		return false
	}
	if v.recent {
		v.recent = false
		return false
	}
	b.removeLocked(v)
	unix.Close(v.fd)
	v.fd = -1
	return true
}

// closed takes d out of the account.
//
// Precondition: d.mu is held.
func (b *budget) closed(d *Dir) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.removeLocked(d)
}

func (b *budget) removeLocked(d *Dir) {
	last := b.ring[len(b.ring)-1]
	b.ring[d.slot], last.slot = last, d.slot
	b.ring[len(b.ring)-1] = nil
	b.ring = b.ring[:len(b.ring)-1]
}
