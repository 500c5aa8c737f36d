package transport

import (
	"encoding/binary"
	"syscall"
)

// Message is a request and the room for its answer, each in parts that make up one stream of bytes.
type Message struct {
	// In is the request: struct fuse_in_header, then what belongs to the operation. If that begins with a structure of
	// fixed size, it is at the beginning of In[1]. Where io_uring carries the message, all of In may share memory with
	// Out but In[1].
	In [][]byte

	// Out is where the answer goes: struct fuse_out_header into Out[0], which has its size, the rest into Out[1].
	Out [][]byte

	// Tag is the handler's, from Answer to Answered.
	Tag int

	in  [3][]byte // what In and Out are slices of, so that no request allocates any
	out [2][]byte
}

// Handler answers requests. Its methods are called from many threads at once, each of them locked to its goroutine.
type Handler interface {
	// Answer answers a request and returns the length of the answer; 0 if there is none to give.
	Answer(m *Message) int

	// Answered follows, when the answer was given to the kernel, or is about to be: see Conn.Settled.
	Answered(m *Message)
}

// struct fuse_in_header and struct fuse_out_header of linux/fuse.h.
const (
	inHeaderSize  = 40
	outHeaderSize = 16
	errorOffset   = 4 // in the out header
)

// Op is the operation (enum fuse_opcode).
func (m *Message) Op() uint32 { return binary.NativeEndian.Uint32(m.In[0][4:]) }

// unique is the number of the request.
func (m *Message) unique() uint64 { return binary.NativeEndian.Uint64(m.In[0][8:]) }

// NodeID is what the request is about.
func (m *Message) NodeID() uint64 { return binary.NativeEndian.Uint64(m.In[0][16:]) }

// caller is the thread that has made the request, as this process knows it; 0 if it does not.
func (m *Message) caller() uint32 { return binary.NativeEndian.Uint32(m.In[0][32:]) }

// Fail answers with an error and nothing else. It returns the length of the answer.
func (m *Message) Fail(errno syscall.Errno) int { return m.reply(-int32(errno), 0) }

// Succeed answers with the first n bytes of Out[1]. It returns the length of the answer.
func (m *Message) Succeed(n int) int { return m.reply(0, n) }

func (m *Message) reply(status int32, n int) int {
	unique := m.unique() // the header may be in its place
	header := m.Out[0]
	binary.NativeEndian.PutUint32(header[0:], uint32(outHeaderSize+n))
	binary.NativeEndian.PutUint32(header[errorOffset:], uint32(status))
	binary.NativeEndian.PutUint64(header[8:], unique)
	return outHeaderSize + n
}

// Errno is the error that the answer tells; 0 if it is none.
func (m *Message) Errno() syscall.Errno {
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Out[0][errorOffset:])))
}

// The operations that matter here (enum fuse_opcode).
const (
	opForget      = 2
	opInit        = 26
	opInterrupt   = 36
	opBatchForget = 42
)
