package transport

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is an io_uring with room for a few commands, which a thread submits when it waits for the completion of one before.
// Only one thread uses it at a time.
type ring struct {
	fd     int
	queues []byte // the memory of both queues, shared with the kernel
	sqes   []byte // the submission entries

	sqHead, sqTail *uint32
	sqMask         uint32
	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           unsafe.Pointer

	pushed uint32  // commands that io_uring_enter has yet to be told of
	flags  uintptr // of io_uring_enter when it waits
}

// From linux/io_uring.h.
const (
	setupSQE128    = 1 << 10 // submission entries have 128 bytes
	setupNoSQArray = 1 << 16 // they are taken as they lie
	featSingleMmap = 1 << 0
	featNoIOWait   = 1 << 17
	enterGetEvents = 1 << 0
	enterNoIOWait  = 1 << 7
	offsetQueues   = 0
	offsetSQEs     = 0x10000000
	opURingCmd     = 46
	sqeSize        = 128
	cqeSize        = 16
	resultOffset   = 8 // in a completion; what the command was given for it to be known by is at 0
	sqeFD          = 4 // what a command needs of a submission entry
	sqeCmdOp       = 8
	sqeAddr        = 16
	sqeLen         = 24
	sqeCmd         = 48
	sqeUserData    = 32
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		userAddr                                                    uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		userAddr                                                    uint64
	}
}

// newRing makes a ring for so many commands, a power of two, none of which waits for more than its completion.
func newRing(commands uint32) (*ring, error) {
	params := ringParams{flags: setupSQE128 | setupNoSQArray}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(commands), uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd), sqMask: params.sqEntries - 1, cqMask: params.cqEntries - 1, flags: enterGetEvents}
	// A thread that waits for a request is idle, and not a reason to call the CPU busy with input and output.
	if params.features&featNoIOWait != 0 {
		r.flags |= enterNoIOWait
	}
	if err := r.mmap(&params); err != nil {
		r.close()
		return nil, fmt.Errorf("mmap the io_uring: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }
	r.sqHead, r.sqTail = at(params.sq.head), at(params.sq.tail)
	r.cqHead, r.cqTail = at(params.cq.head), at(params.cq.tail)
	r.cqes = unsafe.Pointer(&r.queues[params.cq.cqes])
	return r, nil
}

func (r *ring) mmap(params *ringParams) (err error) {
	if params.features&featSingleMmap == 0 {
		return unix.ENOTSUP // before Linux 5.4
	}
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.queues, err = unix.Mmap(r.fd, offsetQueues, int(params.cq.cqes+params.cqEntries*cqeSize), prot, flags); err != nil {
		return err
	}
	r.sqes, err = unix.Mmap(r.fd, offsetSQEs, int(params.sqEntries*sqeSize), prot, flags)
	return err
}

// close gives up the ring. What it has submitted is cancelled.
func (r *ring) close() {
	for _, mem := range [][]byte{r.queues, r.sqes} {
		if mem != nil {
			_ = unix.Munmap(mem)
		}
	}
	unix.Close(r.fd)
}

// entry is the next submission entry, to be filled for push.
func (r *ring) entry() []byte {
	i := *r.sqTail & r.sqMask
	return r.sqes[i*sqeSize : (i+1)*sqeSize]
}

// push makes the submission entry the next command.
func (r *ring) push() {
	atomic.AddUint32(r.sqTail, 1)
	r.pushed++
}

// taken reports whether the kernel has done what was pushed. Other threads may ask, too: a command is done before the head
// of its queue moves on (io_submit_sqes).
func (r *ring) taken() bool { return atomic.LoadUint32(r.sqHead) == atomic.LoadUint32(r.sqTail) }

// submit tells the kernel of what was pushed. If that has failed already, the error is why.
func (r *ring) submit() error {
	for r.pushed > 0 {
		if err := r.enter(0, 0); err != nil {
			return err
		}
	}
	if head := *r.cqHead; head != atomic.LoadUint32(r.cqTail) {
		if _, result := r.result(head); result < 0 {
			atomic.StoreUint32(r.cqHead, head+1)
			return unix.Errno(-result)
		}
	}
	return nil
}

// wait submits what was pushed and returns which command completes next, and its result. It is one system call, but
// after an interruption.
func (r *ring) wait() (command uint64, result int32, _ error) {
	for {
		head := *r.cqHead
		if r.pushed == 0 && head != atomic.LoadUint32(r.cqTail) {
			command, result := r.result(head)
			atomic.StoreUint32(r.cqHead, head+1)
			return command, result, nil
		}
		if err := r.enter(1, r.flags); err != nil {
			return 0, 0, err
		}
	}
}

func (r *ring) result(head uint32) (command uint64, result int32) {
	at := unsafe.Add(r.cqes, uintptr(head&r.cqMask)*cqeSize)
	return *(*uint64)(at), *(*int32)(unsafe.Add(at, resultOffset))
}

// enter is io_uring_enter(2). It is a system call that the Go scheduler knows of, since it may take for ever.
func (r *ring) enter(complete, flags uintptr) error {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pushed), complete, flags, 0, 0)
	switch errno {
	case 0:
		r.pushed -= uint32(n)
		return nil
	case unix.EINTR, unix.EAGAIN: // a signal; no memory for the moment
		return nil
	default:
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
}
