package transport

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// reader is a thread that takes requests from /dev/fuse.
//
// It takes one, answers it and takes the next. There is one, and more as long as requests take long or too many come for
// one: see lookout.
type reader struct {
	conn *Conn
	buf  []byte // for the request, and then for the answer
	msg  Message
}

// bufferSize is for the largest message: its data, and what the kernel insists on besides (FUSE_MIN_READ_BUFFER).
const bufferSize = MaxData + 8<<10

func (c *Conn) newReader() *reader {
	r := &reader{conn: c, buf: make([]byte, bufferSize)}
	r.msg.out = [2][]byte{r.buf[:outHeaderSize], r.buf[outHeaderSize:]}
	r.msg.Out = r.msg.out[:]
	return r
}

// grow adds a thread.
func (c *Conn) grow() {
	if c.crowded() {
		return
	}
	c.lookout.waiting.Add(1)
	c.spawn(func() {
		r := c.readers.Get().(*reader)
		defer c.readers.Put(r)
		r.loop()
	})
}

// loop answers requests until the connection ends, or until enough other threads wait for them.
//
// Precondition: the thread is counted in lookout.waiting.
func (r *reader) loop() {
	runtime.LockOSThread() // requests change the ids of their thread, and a read that waits keeps it anyway
	defer runtime.UnlockOSThread()
	c := r.conn
	at := int32(anyCPU)
	defer func() { c.follow.leave(at) }()
	for turn := turn(0); ; turn.next() {
		at = c.follow.place(at)
		if err := r.read(); err != nil {
			c.lookout.waiting.Add(-1)
			c.lookout.close()
			if !ended(err) {
				c.fail(err)
			}
			return
		}
		if c.uring && r.aside() {
			continue
		}
		c.lookout.begin()
		r.answer()
		if !c.lookout.end() {
			return
		}
	}
}

// read takes the next request.
func (r *reader) read() error {
	for {
		n, err := unix.Read(r.conn.fd, r.buf)
		switch err {
		case nil:
			if n < inHeaderSize {
				return fmt.Errorf("read /dev/fuse: %d bytes are no request", n)
			}
			r.msg.in = [3][]byte{r.buf[:inHeaderSize], r.buf[inHeaderSize:n]}
			r.msg.In = r.msg.in[:2]
			return nil
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: it was taken back meanwhile (fuse_dev_do_read)
		case unix.ENODEV:
			return unix.ENOTCONN // as io_uring has it
		default:
			return fmt.Errorf("read /dev/fuse: %w", err)
		}
	}
}

// answer answers the request that was read.
func (r *reader) answer() {
	caller, size := r.msg.caller(), len(r.msg.In[1])
	n := r.conn.handler.Answer(&r.msg)
	if n > 0 {
		r.write(n)
	}
	r.conn.follow.note(caller, size+n)
	r.conn.handler.Answered(&r.msg)
}

// write gives an answer of n bytes to the kernel.
func (r *reader) write(n int) {
	// ENOENT: the caller was killed and does not wait any more. ENODEV: the connection has ended meanwhile.
	if _, err := unix.Write(r.conn.fd, r.buf[:n]); err != nil && err != unix.ENOENT && err != unix.ENODEV {
		r.conn.log.Printf("answer a request: %v", err)
	}
}

// gather is for how long FORGETs come together where nothing is to be read besides. An rm -r makes one for each file:
// without the pause, each of them would wake up a thread, on a CPU that has better to do.
const gather = time.Millisecond

// aside deals with what comes by /dev/fuse while requests come over io_uring, and reports whether this was of that kind.
func (r *reader) aside() bool {
	switch r.msg.Op() {
	case opForget, opBatchForget:
		r.conn.handler.Answer(&r.msg)
		pause(gather)
	case opInterrupt:
		r.interrupt()
	default:
		return false
	}
	return true
}

// interrupt hands on an INTERRUPT, again if it has overtaken the request that it is about. An answer says that the request is
// not there; the kernel would not understand it, since it looks among those that were read here (fuse_dev_do_write).
func (r *reader) interrupt() {
	const attempts = 4 // it may be not there any more as well
	var request [inHeaderSize + 8]byte
	copy(request[:], r.buf)
	for range attempts {
		if r.conn.handler.Answer(&r.msg) == 0 {
			return
		}
		pause(time.Millisecond)
		copy(r.buf, request[:])
	}
}

// pause sleeps in a system call: this thread belongs to its goroutine, and to wake it up takes the scheduler longer.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // EINTR: less will do
}
