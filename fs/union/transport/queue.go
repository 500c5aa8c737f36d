package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is the queue of requests of one CPU, and the threads that answer them.
//
// A worker is a thread that has lent the kernel one entry: it answers what comes there, and waits for the next. Of those
// that wait, the kernel takes the one that has answered last, whose memory is in the CPU's cache. What finds no worker comes to
// the reserve: many entries of one thread, which makes each request that it gets a new worker's, with its entry, and
// lends the kernel another. So there are as many workers as there were ever requests at work at once, and a few more.
// What finds not even an entry in reserve, since more requests than that came before its thread has had its turn, waits
// for the next answer on that CPU.
type queue struct {
	conn *Conn
	cpu  int
	pin  bool // this process may run on the CPU
}

const (
	// firstWorkers is how many workers a queue begins with.
	firstWorkers = 2
	// reserved is how many entries a reserve has, and reservedByAll all of them together have, as long as each has enough
	// to begin with. An entry is a page of memory, and address space for more, until a large message comes.
	reserved      = 256
	reservedByAll = 4096
	reservedAtAll = 16
)

// thread is what answers requests of a queue, over a ring of its own.
type thread struct {
	*queue
	ring *ring
}

// worker is a thread with one entry.
type worker struct {
	thread
	entry *entry
}

// reserve is a thread with many entries, which answers none if it can be helped.
type reserve struct {
	thread
	entries []*entry // their index is how the ring knows them
}

// entry is a pair of buffers for a request, and then for its answer.
type entry struct {
	memory []byte // headers and payload
	msg    Message
}

// struct fuse_uring_req_header, struct fuse_uring_cmd_req and the commands, of linux/fuse.h.
const (
	inOutOffset  = 0
	opInOffset   = 128
	entryOffset  = 256
	payloadSize  = entryOffset + 16 // in struct fuse_uring_ent_in_out
	commitID     = entryOffset + 8
	headersSize  = 288
	headersRoom  = 4096 // the payload begins on a page
	iovecsOffset = 1024 // after the headers
	iovecsCount  = 2
	iovecsSize   = iovecsCount * int(unsafe.Sizeof(unix.Iovec{}))
	cmdRegister  = 1
	cmdCommit    = 2 // FUSE_IO_URING_CMD_COMMIT_AND_FETCH
	cmdCommitID  = sqeCmd + 8
	cmdQueue     = sqeCmd + 16
	entryRoom    = headersRoom + MaxData
)

// runner is a worker or a reserve.
type runner interface {
	// register lends the kernel what it has.
	register() error
	// loop answers requests until the connection ends.
	loop() error
	// run is the life of the thread.
	run(r runner, begin func() error)
	close()
}

// newRunners makes the threads that each CPU that there could ever be begins with, and nothing else: they do not run yet.
func (c *Conn) newRunners() (runners []runner, err error) {
	count, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	if count > maxThreads/4 {
		return nil, fmt.Errorf("%d CPUs are too many for FUSE over io_uring", count)
	}
	var ours unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	defer func() {
		if err != nil {
			closeAll(runners)
			runners = nil
		}
	}()
	for cpu := range count {
		q := &queue{conn: c, cpu: cpu, pin: ours.IsSet(cpu)}
		r, err := q.newReserve(min(reserved, max(reservedAtAll, reservedByAll/count))) // the first, since the kernel takes the entry that came last
		if err != nil {
			return runners, err
		}
		runners = append(runners, r)
		for range firstWorkers {
			w, err := q.newWorker()
			if err != nil {
				return runners, err
			}
			runners = append(runners, w)
		}
	}
	return runners, nil
}

func closeAll(runners []runner) {
	for _, r := range runners {
		r.close()
	}
}

func (q *queue) newWorker() (*worker, error) {
	ring, err := newRing(1)
	if err != nil {
		return nil, err
	}
	entries, err := newEntries(1)
	if err != nil {
		ring.close()
		return nil, err
	}
	return &worker{thread{q, ring}, entries[0]}, nil
}

func (w *worker) close() {
	w.ring.close()
	w.entry.close()
}

func (q *queue) newReserve(size int) (*reserve, error) {
	ring, err := newRing(uint32(size))
	if err != nil {
		return nil, err
	}
	entries, err := newEntries(size)
	if err != nil {
		ring.close()
		return nil, err
	}
	return &reserve{thread{q, ring}, entries}, nil
}

func (r *reserve) close() {
	r.ring.close()
	for _, e := range r.entries {
		e.close()
	}
}

// newEntries makes n entries, of one mapping, since a process may not have many.
func newEntries(n int) ([]*entry, error) {
	// Only what is used of it becomes memory.
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	memory, err := unix.MmapPtr(-1, 0, nil, uintptr(n)*entryRoom, prot, flags)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	entries := make([]*entry, n)
	for i := range entries {
		entries[i] = &entry{memory: unsafe.Slice((*byte)(unsafe.Add(memory, i*entryRoom)), entryRoom)}
	}
	return entries, nil
}

func (e *entry) close() { _ = unix.MunmapPtr(unsafe.Pointer(&e.memory[0]), entryRoom) }

// run is the life of r, of which t is a part. It begins with begin.
func (t *thread) run(r runner, begin func() error) {
	defer r.close()
	// The thread never goes back to the Go runtime: it is of one CPU.
	runtime.LockOSThread()
	if t.pin {
		var cpu unix.CPUSet
		cpu.Set(t.cpu)
		_ = unix.SchedSetaffinity(0, &cpu) // EINVAL: the CPU was taken offline, or away from us; then any will do
	}
	t.conn.enlist(t.ring)
	defer t.conn.dismiss(t.ring)
	if begin() != nil {
		return
	}
	if err := r.loop(); !ended(err) {
		t.conn.fail(fmt.Errorf("FUSE over io_uring: %w", err))
	}
}

func (c *Conn) enlist(r *ring) {
	c.ringsMu.Lock()
	defer c.ringsMu.Unlock()
	c.rings[r] = struct{}{}
}

func (c *Conn) dismiss(r *ring) {
	c.ringsMu.Lock()
	defer c.ringsMu.Unlock()
	delete(c.rings, r)
}

// ended reports whether an error means that the connection has ended.
func ended(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

func (w *worker) register() error {
	w.lend(w.entry, 0)
	return w.ring.submit()
}

func (r *reserve) register() error {
	for i, e := range r.entries {
		r.lend(e, i)
	}
	return r.ring.submit()
}

func (w *worker) loop() error {
	for turn := turn(0); ; turn.next() {
		if _, err := w.wait(); err != nil {
			return err
		}
		w.serve(w.entry, 0)
	}
}

func (r *reserve) loop() error {
	for {
		i, err := r.wait()
		if err != nil {
			return err
		}
		if !r.handOver(i) {
			r.serve(r.entries[i], i)
		}
	}
}

// handOver makes the request that is in an entry a new worker's, and lends the kernel a new entry in its place, before
// anything is done for the request. It reports whether it has done so.
func (r *reserve) handOver(i int) bool {
	if r.conn.crowded() {
		return false
	}
	next, err := r.newWorker()
	if err != nil {
		r.conn.log.Printf("one more thread for the requests of CPU %d: %v", r.cpu, err)
		return false
	}
	r.entries[i], next.entry = next.entry, r.entries[i]
	r.lend(r.entries[i], i)
	if err := r.ring.submit(); err != nil { // the connection has ended, as will be seen soon
		r.entries[i], next.entry = next.entry, r.entries[i]
		next.close()
		return false
	}
	// An entry is of whoever submits the next command for it, so the answer can come from the worker.
	r.conn.spawn(func() {
		next.run(next, func() error {
			next.serve(next.entry, 0)
			return nil
		})
	})
	return true
}

// lend makes it the next command to register an entry with the kernel. The ring knows it by i from then on.
func (t *thread) lend(e *entry, i int) {
	iovecs := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&e.memory[iovecsOffset])), iovecsCount)
	iovecs[0].Base = &e.memory[0]
	iovecs[0].SetLen(headersSize)
	iovecs[1].Base = &e.memory[headersRoom]
	iovecs[1].SetLen(MaxData)
	sqe := t.command(cmdRegister, i)
	binary.NativeEndian.PutUint64(sqe[sqeAddr:], uint64(uintptr(unsafe.Pointer(&iovecs[0]))))
	binary.NativeEndian.PutUint32(sqe[sqeLen:], iovecsCount)
	t.ring.push()
}

// command begins a command to the kernel's FUSE client about the entry i.
func (t *thread) command(op uint32, i int) []byte {
	sqe := t.ring.entry()
	clear(sqe)
	sqe[0] = opURingCmd
	binary.NativeEndian.PutUint32(sqe[sqeFD:], uint32(t.conn.fd))
	binary.NativeEndian.PutUint32(sqe[sqeCmdOp:], op)
	binary.NativeEndian.PutUint64(sqe[sqeUserData:], uint64(i))
	binary.NativeEndian.PutUint16(sqe[cmdQueue:], uint16(t.cpu))
	return sqe
}

// wait returns the entry in which there is a request.
func (t *thread) wait() (i int, _ error) {
	command, result, err := t.ring.wait()
	if err == nil && result < 0 {
		err = unix.Errno(-result)
	}
	return int(command), err
}

// serve answers the request that is in an entry, once the ring is entered next.
func (t *thread) serve(e *entry, i int) {
	e.take()
	id := binary.NativeEndian.Uint64(e.memory[commitID:])
	n := t.conn.handler.Answer(&e.msg)
	if n == 0 { // without an answer the entry would take nothing any more
		n = e.msg.Fail(unix.EIO)
	}
	binary.NativeEndian.PutUint32(e.memory[payloadSize:], uint32(n-outHeaderSize))
	binary.NativeEndian.PutUint64(t.command(cmdCommit, i)[cmdCommitID:], id)
	t.ring.push()
	t.conn.handler.Answered(&e.msg)
}

// take makes the message of what the kernel has put into the entry.
func (e *entry) take() {
	m := &e.msg
	payload := e.memory[headersRoom:]
	data := int(binary.NativeEndian.Uint32(e.memory[payloadSize:]))
	header := e.memory[inOutOffset : inOutOffset+inHeaderSize]
	length := int(binary.NativeEndian.Uint32(header))
	m.in = [3][]byte{header, e.memory[opInOffset : opInOffset+length-inHeaderSize-data], payload[:data]}
	m.out = [2][]byte{e.memory[inOutOffset : inOutOffset+outHeaderSize], payload}
	m.In, m.Out = m.in[:], m.out[:]
}
