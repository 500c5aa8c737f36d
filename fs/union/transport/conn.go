package transport

import (
	"fmt"
	"io"
	"log"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// MaxData is the most bytes that a request or its answer has besides what the operation needs: the largest write, read
// and listing. It is what the kernel allows by default (fs.fuse.max_pages_limit, 256 pages of 4 KiB).
const MaxData = 1 << 20

// Mode says whether requests come over io_uring.
type Mode int

const (
	// Auto: where the kernel offers it. Where it cannot be had all the same, that is logged.
	Auto Mode = iota
	// On: or not at all.
	On
	// Off: they come by /dev/fuse.
	Off
)

// Options say how to serve a connection.
type Options struct {
	IOUring Mode
	Log     *log.Logger // nil discards what cannot be told to a caller
}

// Conn is the connection of one FUSE file system with the process that serves it.
type Conn struct {
	fd      int
	handler Handler
	options Options
	log     *log.Logger

	lookout *lookout
	follow  *follower
	readers sync.Pool // of *reader: threads come and go, and their buffers are large
	uring   bool      // requests come over io_uring; set before there is a second thread that reads

	ringsMu sync.Mutex
	rings   map[*ring]struct{} // of the threads that answer over io_uring

	threads sync.WaitGroup
	count   atomic.Int32 // of threads

	failMu sync.Mutex
	failed error
}

// maxThreads is how many requests can be at work at once. More wait in the kernel. The Go runtime ends a process with
// more than 10,000 threads.
const maxThreads = 4000

// Open makes a connection that belongs to no file system yet: that is made with the mount option fd=FD.
func Open() (*Conn, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		c := &Conn{fd: fd, rings: map[*ring]struct{}{}}
		c.lookout = newLookout(c)
		c.follow = newFollower()
		c.readers.New = func() any { return c.newReader() }
		return c, nil
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return nil, fmt.Errorf("no FUSE on this system: load the module (modprobe fuse), or make /dev/fuse available in the container")
	case unix.EACCES, unix.EPERM:
		return nil, fmt.Errorf("/dev/fuse may not be opened: run as root, or give read and write permission on it")
	default:
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
}

// FD is the descriptor of /dev/fuse, for the mount option and for ioctls. It stays the connection's.
func (c *Conn) FD() int { return c.fd }

// Serve begins to answer requests with h. The channel tells how the first one went, INIT. If there is an error, nothing
// but the end of the connection can be expected.
func (c *Conn) Serve(h Handler, o Options) <-chan error {
	c.handler, c.options, c.log = h, o, o.Log
	if c.log == nil {
		c.log = log.New(io.Discard, "", 0)
	}
	addSpareProcessors()
	began := make(chan error, 1)
	c.lookout.waiting.Add(1)
	c.spawn(func() {
		r := c.newReader()
		began <- r.handshake()
		r.loop()
	})
	c.spawn(c.lookout.run)
	return began
}

// Name is what carries the requests, "/dev/fuse" or "io_uring". It is known once INIT was answered.
func (c *Conn) Name() string {
	if c.uring {
		return "io_uring"
	}
	return "/dev/fuse"
}

// Alive reports whether a thread waits for requests, which is so only before the end of the connection, but not all the
// time until then: all of them may be at work.
func (c *Conn) Alive() bool { return c.lookout.waiting.Load() > 0 }

// Settled reports whether the kernel has all answers of which Handler.Answered was told. Over io_uring, what gives it an
// answer also waits for the next request, so nobody can be told in between.
func (c *Conn) Settled() bool {
	c.ringsMu.Lock()
	defer c.ringsMu.Unlock()
	for r := range c.rings {
		if !r.taken() {
			return false
		}
	}
	return true
}

// Notify sends the kernel a message that is no answer (struct fuse_out_header with the number 0, and what belongs to
// it), whatever carries the requests.
func (c *Conn) Notify(msg []byte) error {
	_, err := unix.Write(c.fd, msg)
	return err
}

// Wait returns when no thread is left: the file system was unmounted (nil), or cannot be served (why).
func (c *Conn) Wait() error {
	c.threads.Wait()
	c.failMu.Lock()
	defer c.failMu.Unlock()
	return c.failed
}

// Close gives up the connection. The kernel then answers ENOTCONN to whoever still uses the file system.
//
// Precondition: Wait has returned, or Serve was never called.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Go runs f in a new goroutine, which Wait waits for.
func (c *Conn) Go(f func()) { c.spawn(f) }

// spawn runs f in a new goroutine.
func (c *Conn) spawn(f func()) {
	c.count.Add(1)
	c.threads.Add(1)
	go func() {
		defer c.threads.Done()
		defer c.count.Add(-1)
		f()
	}()
}

// crowded reports whether there are enough threads, whatever they do.
func (c *Conn) crowded() bool { return c.count.Load() >= maxThreads }

// fail notes why the connection is not served as it should be. The first reason counts.
func (c *Conn) fail(err error) {
	c.failMu.Lock()
	defer c.failMu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}
