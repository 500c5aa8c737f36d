package union

import (
	"log"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// server answers the requests of one mounted union: each passes the gate, is counted, and is taken apart by quick.go or by
// go-fuse, which call a method of FS. How requests get here is the transport's business.
type server struct {
	conn     *transport.Conn
	protocol *fuse.ProtocolServer
	fs       *FS
	gate     *gate
	log      *log.Logger
	observer Observer // nil: nobody counts

	// order is counted up when a request comes and when its answer goes. The kernel sends some requests only after the
	// answers to others, FORGET and RELEASE above all, and relies on nothing else; Go's memory model does not know that.
	order atomic.Uint64
}

// serve starts to answer the requests that arrive on conn with fs. The channel tells how it began.
func serve(conn *transport.Conn, fs *FS, gate *gate, logger *log.Logger) (*server, <-chan error) {
	s := &server{
		conn:     conn,
		fs:       fs,
		gate:     gate,
		log:      logger,
		observer: fs.observer,
		protocol: fuse.NewProtocolServer(fs, &fuse.MountOptions{
			MaxWrite:      transport.MaxData,
			MaxBackground: 64,
			EnableAcl:     fs.acls(),

			EnableSymlinkCaching: fs.remembersTargets(),
			Logger:               logger,
			ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | // open with O_TRUNC copies nothing up
				fuse.CAP_DONT_MASK | // the umask is applied where default ACLs are known
				fuse.CAP_HANDLE_KILLPRIV_V2 |
				fuse.CAP_IOCTL_DIR |
				fuse.CAP_READDIRPLUS_AUTO |
				fuse.CAP_NO_OPENDIR_SUPPORT |
				fuse.CAP_SETXATTR_EXT |
				fuse.CAP_ASYNC_DIO |
				fs.exportCapability(),
			DisabledCapabilities: fs.refusedCapabilities(),
			MaxStackDepth:        fs.stackDepth(),
		}),
	}
	fs.kernel = s
	return s, conn.Serve(s, transport.Options{IOUring: transportMode[fs.options().IOUring], Log: logger})
}

// transportMode is what the option io_uring means.
var transportMode = map[layer.IOUring]transport.Mode{
	layer.IOUringAuto: transport.Auto,
	layer.IOUringOn:   transport.On,
	layer.IOUringOff:  transport.Off,
}

// Answer implements transport.Handler.
func (s *server) Answer(m *transport.Message) int {
	s.order.Add(1)
	defer s.order.Add(1)
	if s.observer != nil {
		return s.observed(m)
	}
	return s.answer(m)
}

// answer answers a request, and returns the length of the answer. Some requests have none.
func (s *server) answer(m *transport.Message) int {
	t, err := s.admit(m)
	m.Tag = int(t)
	if err == errDropped {
		return 0
	}
	if err != nil {
		return m.Fail(unix.ESTALE)
	}
	if n, ok := s.quick(m); ok {
		return n
	}
	n, status := s.protocol.HandleRequest(m.In, m.Out)
	if !status.Ok() { // nothing was written: a request that go-fuse cannot parse
		return m.Fail(syscall.Errno(status))
	}
	return n
}

// Answered implements transport.Handler.
func (s *server) Answered(m *transport.Message) { s.gate.leave(ticket(m.Tag)) }

// grace returns when every request that was at work has been answered, and reports whether there was any.
func (s *server) grace() (waited bool) {
	waited = s.gate.grace()
	for !s.conn.Settled() {
		waited = true
		time.Sleep(graceTick)
	}
	return waited
}
