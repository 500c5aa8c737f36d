package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is the queue of requests of one CPU, and the threads that answer them.
//
// It begins with a few threads. One that takes a request looks how many others wait. If they are too few, it leaves the
// request to a new thread and lends the kernel another entry at once, before anything is done for the request: see
// replace. So there are always some more entries than requests at work, but for a burst: if more requests come from one
// CPU than there are entries, before a thread has had its turn, the others wait for the next answer on that CPU. Threads
// stay, and of those that wait the kernel takes the one that came last, whose memory is in the CPU's cache.
type queue struct {
	conn    *Conn
	cpu     int
	pin     bool         // this process may run on the CPU
	waiting atomic.Int32 // threads that wait for a request
}

const (
	// firstThreads is how many a queue begins with, and so what burst it takes. Each is a kernel stack and a few pages.
	firstThreads = 8
	// fewWaiting: when fewer wait, there is to be one more.
	fewWaiting = 4
)

// worker is a thread of a queue: one ring, in which is one entry at most.
type worker struct {
	*queue
	ring   *ring
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

// newWorkers makes the first workers for each CPU that there could ever be, and nothing else: they do not run yet.
func (c *Conn) newWorkers() (workers []*worker, _ error) {
	count, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	if count > maxThreads/firstThreads/2 {
		return nil, fmt.Errorf("%d CPUs are too many for FUSE over io_uring", count)
	}
	var ours unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for cpu := range count {
		q := &queue{conn: c, cpu: cpu, pin: ours.IsSet(cpu)}
		for range firstThreads {
			w, err := q.newWorker()
			if err != nil {
				closeAll(workers)
				return nil, err
			}
			workers = append(workers, w)
		}
	}
	return workers, nil
}

func closeAll(workers []*worker) {
	for _, w := range workers {
		w.close()
	}
}

func (q *queue) newWorker() (*worker, error) {
	ring, err := newRing()
	if err != nil {
		return nil, err
	}
	// Only what is used of it becomes memory.
	memory, err := unix.Mmap(-1, 0, entryRoom, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		ring.close()
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return &worker{queue: q, ring: ring, memory: memory}, nil
}

func (w *worker) close() {
	w.ring.close()
	_ = unix.Munmap(w.memory)
}

// replace leaves the request that w has taken to a new thread, and lends the kernel a new entry to wait with. An entry is
// of whoever submits the next command for it, so the answer can come from there. It reports whether it has done so.
func (w *worker) replace() bool {
	if w.conn.crowded() {
		return false
	}
	next, err := w.newWorker()
	if err != nil {
		w.conn.log.Printf("one more thread for the requests of CPU %d: %v", w.cpu, err)
		return false
	}
	w.memory, next.memory = next.memory, w.memory
	if err := w.register(); err != nil {
		w.memory, next.memory = next.memory, w.memory
		next.close()
		return false // the connection has ended, as will be seen soon
	}
	w.conn.spawn(func() { next.run(next.serve) })
	return true
}

// run is the life of the thread: begin is its first step, after which it is counted in w.waiting.
func (w *worker) run(begin func() error) {
	defer w.close()
	// The thread never goes back to the Go runtime: it is of one CPU.
	runtime.LockOSThread()
	if w.pin {
		var cpu unix.CPUSet
		cpu.Set(w.cpu)
		_ = unix.SchedSetaffinity(0, &cpu) // EINVAL: the CPU was taken offline, or away from us; then any will do
	}
	w.conn.enlist(w)
	defer w.conn.dismiss(w)
	if begin() != nil {
		return
	}
	err := w.loop()
	w.waiting.Add(-1)
	if !ended(err) {
		w.conn.fail(fmt.Errorf("FUSE over io_uring: %w", err))
	}
}

func (c *Conn) enlist(w *worker) {
	c.workersMu.Lock()
	defer c.workersMu.Unlock()
	c.workers[w] = struct{}{}
}

func (c *Conn) dismiss(w *worker) {
	c.workersMu.Lock()
	defer c.workersMu.Unlock()
	delete(c.workers, w)
}

// ended reports whether an error means that the connection has ended.
func ended(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// register lends the kernel an entry.
func (w *worker) register() error {
	iovecs := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&w.memory[iovecsOffset])), iovecsCount)
	iovecs[0].Base = &w.memory[0]
	iovecs[0].SetLen(headersSize)
	iovecs[1].Base = &w.memory[headersRoom]
	iovecs[1].SetLen(MaxData)
	sqe := w.command(cmdRegister)
	binary.NativeEndian.PutUint64(sqe[sqeAddr:], uint64(uintptr(unsafe.Pointer(&iovecs[0]))))
	binary.NativeEndian.PutUint32(sqe[sqeLen:], iovecsCount)
	w.ring.push()
	return w.ring.submit()
}

// command begins a command to the kernel's FUSE client.
func (w *worker) command(op uint32) []byte {
	sqe := w.ring.entry()
	clear(sqe)
	sqe[0] = opURingCmd
	binary.NativeEndian.PutUint32(sqe[sqeFD:], uint32(w.conn.fd))
	binary.NativeEndian.PutUint32(sqe[sqeCmdOp:], op)
	binary.NativeEndian.PutUint16(sqe[cmdQueue:], uint16(w.cpu))
	return sqe
}

// loop answers requests until the connection ends.
func (w *worker) loop() error {
	for turn := turns(0); ; turn.next() {
		result, err := w.ring.wait()
		if err != nil {
			return err
		}
		if result < 0 {
			return unix.Errno(-result)
		}
		if w.waiting.Add(-1) < fewWaiting && w.replace() {
			w.waiting.Add(1)
			continue
		}
		_ = w.serve()
	}
}

// serve answers the request that is in the entry, once the ring is entered next.
func (w *worker) serve() error {
	w.take()
	id := binary.NativeEndian.Uint64(w.memory[commitID:])
	n := w.conn.handler.Answer(&w.msg)
	if n == 0 { // without an answer the entry would take nothing any more
		n = w.msg.Fail(unix.EIO)
	}
	w.waiting.Add(1)
	w.commit(id, n)
	w.conn.handler.Answered(&w.msg)
	return nil
}

// take makes the message of what the kernel has put into the entry.
func (w *worker) take() {
	m := &w.msg
	payload := w.memory[headersRoom:]
	data := int(binary.NativeEndian.Uint32(w.memory[payloadSize:]))
	header := w.memory[inOutOffset : inOutOffset+inHeaderSize]
	length := int(binary.NativeEndian.Uint32(header))
	m.in = [3][]byte{header, w.memory[opInOffset : opInOffset+length-inHeaderSize-data], payload[:data]}
	m.out = [2][]byte{w.memory[inOutOffset : inOutOffset+outHeaderSize], payload}
	m.In, m.Out = m.in[:], m.out[:]
}

// commit makes the answer, of n bytes, what is submitted next.
func (w *worker) commit(id uint64, n int) {
	binary.NativeEndian.PutUint32(w.memory[payloadSize:], uint32(n-outHeaderSize))
	sqe := w.command(cmdCommit)
	binary.NativeEndian.PutUint64(sqe[cmdCommitID:], id)
	w.ring.push()
}
