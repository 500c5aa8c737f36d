package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFiles is how many files may go with a message; the kernel takes 253 (SCM_MAX_FD).
const maxFiles = 16

// Conn is one end of a connection. One goroutine may receive while others send.
type Conn struct {
	socket *net.UnixConn
	limit  int
	files  []*os.File // received, not taken yet

	sending sync.Mutex
}

// New makes a connection of a socket, which it takes over. No message longer than limit bytes is received: the other
// end need not be trusted.
func New(socket *net.UnixConn, limit int) *Conn { return &Conn{socket: socket, limit: limit} }

// FromFile is [New] for a socket that is an open file, such as one end of a socketpair(2).
func FromFile(f *os.File, limit int) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	socket, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a socket of the Unix domain")
	}
	return New(socket, limit), nil
}

// Send sends a message. The files stay the caller's.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	message := append(binary.NativeEndian.AppendUint32(nil, uint32(len(body))), body...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	n, _, err := c.socket.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = c.socket.Write(message[n:])
	}
	return err
}

// Receive receives a message; io.EOF if there will be none.
func (c *Conn) Receive(v any) error {
	var header [4]byte
	if err := c.read(header[:]); err != nil {
		return err
	}
	size := binary.NativeEndian.Uint32(header[:])
	if uint64(size) > uint64(c.limit) {
		return fmt.Errorf("a message of %d bytes, where %d are the most", size, c.limit)
	}
	body := make([]byte, size)
	if err := c.read(body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(body, v)
}

// Files takes the files that came with the messages received so far, in their order. They are the caller's.
func (c *Conn) Files() []*os.File {
	files := c.files
	c.files = nil
	return files
}

// read fills buf, and keeps what files come with it.
func (c *Conn) read(buf []byte) error {
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	for done := 0; done < len(buf); {
		n, oob, flags, _, err := c.socket.ReadMsgUnix(buf[done:], rights)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := c.keep(rights[:oob]); err != nil {
			return err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return fmt.Errorf("more than %d files with a message", maxFiles)
		}
		if n == 0 {
			if done > 0 {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		}
		done += n
	}
	return nil
}

// keep takes the descriptors out of control messages. They are close-on-exec: package net asks for MSG_CMSG_CLOEXEC.
func (c *Conn) keep(control []byte) error {
	if len(control) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fmt.Errorf("control message: %w", err)
		}
		for _, fd := range fds {
			c.files = append(c.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return nil
}

// Close ends the connection; who receives on either end is told so. Files that were not taken are closed.
func (c *Conn) Close() error {
	for _, f := range c.Files() {
		f.Close()
	}
	return c.socket.Close()
}
