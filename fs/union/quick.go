package union

import (
	"bytes"
	"runtime/debug"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// For every request go-fuse makes an object of a kilobyte, a channel by which it can be interrupted, and an entry in a list
// that all threads share. That is a tenth of what a lookup costs. So what is asked most, and never takes long enough to
// be interrupted, is taken apart here. The answers are the same to the byte, as TestQuick checks.

// The operations that are answered here (enum fuse_opcode).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opUnlink      = 10
	opOpen        = 14
	opRelease     = 18
	opGetxattr    = 22
	opReaddir     = 28
	opCreate      = 35
	opBatchForget = 42
	opReaddirplus = 44
)

// quick answers a request, and returns the length of the answer, or false for what it leaves to go-fuse.
func (s *server) quick(m *transport.Message) (n int, ok bool) {
	defer func() {
		if fault := recover(); fault != nil { // as go-fuse does it: one request fails, not all that are to come
			s.log.Printf("panic in %s: %v\n%s", Operations[m.Op()], fault, debug.Stack())
			n, ok = m.Fail(unix.EIO), true
		}
	}()
	switch m.Op() {
	case opLookup:
		return s.quickLookup(m)
	case opGetattr:
		return s.quickGetattr(m)
	case opSetattr:
		return s.quickSetattr(m)
	case opGetxattr:
		return s.quickGetxattr(m)
	case opOpen:
		return s.quickOpen(m)
	case opRead:
		return s.quickRead(m)
	case opWrite:
		return s.quickWrite(m)
	case opReaddir:
		return s.quickReaddir(m, s.fs.ReadDir)
	case opReaddirplus:
		return s.quickReaddir(m, s.fs.ReadDirPlus)
	case opRelease:
		return s.quickRelease(m)
	case opCreate:
		return s.quickCreate(m)
	case opUnlink:
		return s.quickUnlink(m)
	case opForget:
		return s.quickForget(m)
	case opBatchForget:
		return s.quickBatchForget(m)
	}
	return 0, false
}

func (s *server) quickLookup(m *transport.Message) (int, bool) {
	var header fuse.InHeader
	rest, ok := decode(m, &header)
	if !ok {
		return 0, false
	}
	var out fuse.EntryOut
	status := s.fs.Lookup(nil, &header, text(rest), &out)
	return reply(m, status, &out), true
}

func (s *server) quickGetattr(m *transport.Message) (int, bool) {
	var in fuse.GetAttrIn
	if _, ok := decode(m, &in); !ok {
		return 0, false
	}
	var out fuse.AttrOut
	return reply(m, s.fs.GetAttr(nil, &in, &out), &out), true
}

// quickSetattr leaves to go-fuse what may copy up.
func (s *server) quickSetattr(m *transport.Message) (int, bool) {
	var in fuse.SetAttrIn
	if _, ok := decode(m, &in); !ok {
		return 0, false
	}
	if n := s.fs.node(in.NodeId); n == nil || !n.upper.Load() || in.Valid&fuse.FATTR_SIZE != 0 {
		return 0, false
	}
	var out fuse.AttrOut
	return reply(m, s.fs.SetAttr(nil, &in, &out), &out), true
}

func (s *server) quickGetxattr(m *transport.Message) (int, bool) {
	var in fuse.GetXAttrIn
	rest, ok := decode(m, &in)
	if !ok || int(in.Size) > len(m.Out[1]) {
		return 0, false
	}
	attr := text(rest)
	size, status := s.fs.GetXAttr(nil, &in.InHeader, attr, m.Out[1][:in.Size])
	if in.Size > 0 {
		if status != fuse.OK {
			return m.Fail(syscall.Errno(status)), true
		}
		return m.Succeed(int(size)), true
	}
	if status == fuse.ERANGE { // who asks for the size gets it
		status = fuse.OK
	}
	return reply(m, status, &fuse.GetXAttrOut{Size: size}), true
}

// quickOpen leaves to go-fuse what may copy up.
func (s *server) quickOpen(m *transport.Message) (int, bool) {
	var in fuse.OpenIn
	if _, ok := decode(m, &in); !ok || backingFlags(in.Flags) != unix.O_RDONLY {
		return 0, false
	}
	var out fuse.OpenOut
	return reply(m, s.fs.Open(nil, &in, &out), &out), true
}

func (s *server) quickRead(m *transport.Message) (int, bool) {
	var in fuse.ReadIn
	if _, ok := decode(m, &in); !ok || int(in.Size) > len(m.Out[1]) {
		return 0, false
	}
	n, status := s.fs.readFile(&in, m.Out[1][:in.Size])
	if status != fuse.OK {
		return m.Fail(syscall.Errno(status)), true
	}
	return m.Succeed(n), true
}

func (s *server) quickWrite(m *transport.Message) (int, bool) {
	var in fuse.WriteIn
	data, ok := decode(m, &in)
	if !ok || int(in.Size) > len(data) {
		return 0, false
	}
	size, status := s.fs.Write(nil, &in, data[:in.Size])
	return reply(m, status, &fuse.WriteOut{Size: size}), true
}

func (s *server) quickReaddir(m *transport.Message, list func(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status) (int, bool) {
	var in fuse.ReadIn
	if _, ok := decode(m, &in); !ok || int(in.Size) > len(m.Out[1]) {
		return 0, false
	}
	out := fuse.NewDirEntryList(m.Out[1][:in.Size], in.Offset)
	if status := list(nil, &in, out); status != fuse.OK {
		return m.Fail(syscall.Errno(status)), true
	}
	return m.Succeed(len(out.Bytes())), true
}

func (s *server) quickRelease(m *transport.Message) (int, bool) {
	var in fuse.ReleaseIn
	if _, ok := decode(m, &in); !ok {
		return 0, false
	}
	s.fs.Release(nil, &in)
	return m.Succeed(0), true
}

func (s *server) quickCreate(m *transport.Message) (int, bool) {
	var in fuse.CreateIn
	rest, ok := decode(m, &in)
	if !ok || in.TotalExtlen > 0 {
		return 0, false
	}
	var out fuse.CreateOut
	return reply(m, s.fs.Create(nil, &in, text(rest), &out), &out), true
}

func (s *server) quickUnlink(m *transport.Message) (int, bool) {
	var header fuse.InHeader
	rest, ok := decode(m, &header)
	if !ok {
		return 0, false
	}
	if status := s.fs.Unlink(nil, &header, text(rest)); status != fuse.OK {
		return m.Fail(syscall.Errno(status)), true
	}
	return m.Succeed(0), true
}

func (s *server) quickForget(m *transport.Message) (int, bool) {
	var in fuse.ForgetIn
	if _, ok := decode(m, &in); !ok {
		return 0, false
	}
	s.fs.Forget(in.NodeId, in.Nlookup)
	return 0, true
}

func (s *server) quickBatchForget(m *transport.Message) (int, bool) {
	var in struct { // struct fuse_batch_forget_in
		fuse.InHeader
		Count, _ uint32
	}
	type one struct{ NodeID, Lookups uint64 } // struct fuse_forget_one
	rest, ok := decode(m, &in)
	if !ok || len(rest) < int(in.Count)*int(unsafe.Sizeof(one{})) {
		return 0, false
	}
	for range in.Count {
		var f one
		rest = rest[copy(bytesOf(&f), rest):]
		s.fs.Forget(f.NodeID, f.Lookups)
	}
	return 0, true
}

// decode copies into in, which begins with a fuse.InHeader, what a request has of fixed size, and returns the rest: a name,
// mostly. It returns false if the request is shorter. Nothing of the request itself may be used once the answer is being
// written, which may take its place.
func decode[T any](m *transport.Message, in *T) (rest []byte, ok bool) {
	fixed := bytesOf(in)
	fixed = fixed[copy(fixed, m.In[0]):]
	if len(m.In[1]) < len(fixed) {
		return nil, false
	}
	rest = m.In[1][copy(fixed, m.In[1]):]
	if len(m.In) > 2 {
		rest = m.In[2]
	}
	return rest, true
}

// text copies a string that ends with a NUL.
func text(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// reply answers with out, or with an error.
func reply[T any](m *transport.Message, status fuse.Status, out *T) int {
	if status != fuse.OK {
		return m.Fail(syscall.Errno(status))
	}
	return m.Succeed(copy(m.Out[1], bytesOf(out)))
}

func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }
