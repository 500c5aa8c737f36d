package union

import (
	"encoding/binary"
	"fmt"
	"log"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is an open /dev/fuse, which carries the requests of one mounted union, and the threads that read them.
//
// A thread reads one request, answers it and reads the next. There are as many threads as requests in work at once,
// and a few more that wait, so that a slow one, a large copy-up, holds up nobody else.
type device struct {
	fd       int
	protocol *fuse.ProtocolServer
	fs       *FS
	gate     *gate
	log      *log.Logger
	observer Observer // nil: nobody counts

	waiting atomic.Int32 // threads that wait for a request
	threads sync.WaitGroup
	ready   chan struct{} // closed when the first request, INIT, was answered
	once    sync.Once

	failMu sync.Mutex
	failed error // why reading stopped, if not because the union was unmounted
}

const (
	// maxWrite is the largest write request in bytes, and the largest read: what the kernel allows by default
	// (fs.fuse.max_pages_limit, 256 pages of 4 KiB).
	maxWrite = 1 << 20

	// headerRoom is what a request or an answer has besides the data, rounded up to what the kernel insists on for
	// the buffer (FUSE_MIN_READ_BUFFER).
	headerRoom = 8 << 10

	// maxWaiting is how many threads may wait for requests: more would only compete for the same request.
	maxWaiting = 3
)

func openDevice() (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return fd, nil
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return -1, fmt.Errorf("no FUSE on this system: load the module (modprobe fuse), or make /dev/fuse available in the container")
	case unix.EACCES, unix.EPERM:
		return -1, fmt.Errorf("/dev/fuse may not be opened: run as root, or give read and write permission on it")
	default:
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
}

// serve starts to answer the requests that arrive on fd with fs. The device owns fd.
func serve(fd int, fs *FS, gate *gate, logger *log.Logger) *device {
	d := &device{
		fd:       fd,
		fs:       fs,
		gate:     gate,
		log:      logger,
		observer: fs.observer,
		protocol: fuse.NewProtocolServer(fs, &fuse.MountOptions{
			MaxWrite:      maxWrite,
			MaxBackground: 64,
			EnableAcl:     fs.acls(),
			Logger:        logger,
			ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | // open with O_TRUNC copies nothing up
				fuse.CAP_DONT_MASK | // the umask is applied where default ACLs are known
				fuse.CAP_HANDLE_KILLPRIV_V2 |
				fuse.CAP_IOCTL_DIR |
				fuse.CAP_READDIRPLUS_AUTO |
				fuse.CAP_SETXATTR_EXT |
				fuse.CAP_ASYNC_DIO |
				fs.exportCapability(),
			DisabledCapabilities: fs.refusedCapabilities(),
			MaxStackDepth:        fs.stackDepth(),
		}),
		ready: make(chan struct{}),
	}
	fs.kernel = d
	d.start()
	return d
}

// start adds a thread.
func (d *device) start() {
	d.threads.Add(1)
	d.waiting.Add(1)
	go func() {
		defer d.threads.Done()
		runtime.LockOSThread() // requests change the ids of their thread, and a blocking read keeps it anyway
		defer runtime.UnlockOSThread()
		d.loop()
	}()
}

// loop answers requests until the union is unmounted, or until enough other threads wait for them.
func (d *device) loop() {
	in := make([]byte, headerRoom+maxWrite)
	out := make([]byte, headerRoom+maxWrite)
	for {
		n, err := unix.Read(d.fd, in)
		if err != nil {
			if retry(err) {
				continue
			}
			d.waiting.Add(-1)
			if err != unix.ENODEV && err != unix.ECONNABORTED { // unmounted; aborted, by us or by its end
				d.fail(fmt.Errorf("read /dev/fuse: %w", err))
			}
			return
		}
		if d.waiting.Add(-1) == 0 {
			d.start()
		}
		if d.observer == nil {
			d.answer(in[:n], out)
		} else {
			d.observed(in[:n], out)
		}
		if d.waiting.Add(1) > maxWaiting {
			d.waiting.Add(-1)
			return
		}
	}
}

// retry reports whether a failed read is to be done again: interrupted, or the request was taken back before it was
// read (fuse_dev_do_read).
func retry(err error) bool {
	return err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT
}

// answer answers a request, and returns the length of the answer, which is in out. Some requests have none.
func (d *device) answer(in, out []byte) int {
	t, err := d.admit(in)
	if err == errDropped {
		return 0
	}
	status := fuse.Status(unix.ESTALE)
	n := 0
	if err == nil {
		n, status = d.protocol.HandleRequest([][]byte{in}, [][]byte{out})
	}
	if !status.Ok() { // nothing was written to out: a request that go-fuse cannot parse, or that came too late
		n = errorReply(in, out, status)
	}
	defer d.gate.leave(t)
	if n > 0 {
		// ENOENT: the caller was killed and does not wait any more. ENODEV: the union was unmounted meanwhile.
		if _, err := unix.Write(d.fd, out[:n]); err != nil && err != unix.ENOENT && err != unix.ENODEV {
			d.log.Printf("answer a request: %v", err)
		}
	}
	d.once.Do(func() { close(d.ready) })
	return n
}

// errorReply writes an answer that is an error and nothing else (struct fuse_out_header).
func errorReply(in, out []byte, status fuse.Status) int {
	const size = 16
	binary.NativeEndian.PutUint32(out[0:], size)
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(status)))
	copy(out[8:16], in[8:16]) // the request's unique number
	return size
}

func (d *device) fail(err error) {
	d.failMu.Lock()
	defer d.failMu.Unlock()
	if d.failed == nil {
		d.failed = err
	}
}

// wait returns when no thread is left: the union is unmounted, or cannot be served.
func (d *device) wait() error {
	d.threads.Wait()
	d.failMu.Lock()
	defer d.failMu.Unlock()
	return d.failed
}

// close gives up the device. The kernel then answers ENOTCONN to whoever still uses the union.
func (d *device) close() error { return unix.Close(d.fd) }
