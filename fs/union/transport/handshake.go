package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Parameter is the parameter of the kernel's FUSE module that makes it offer io_uring, if it is Y.
const Parameter = "/sys/module/fuse/parameters/enable_uring"

// Flags of INIT, and where they are in struct fuse_init_in and struct fuse_init_out: the lower and the upper half.
const (
	flagInitExt  = 1 << 30 // in the lower half: the upper half counts
	flagOverRing = 1 << 9  // in the upper half: FUSE_OVER_IO_URING
	flagsOffset  = 12
	inFlags2     = 16
	outFlags2    = 32
	initOutSize  = 64
)

// handshake answers INIT, and makes requests come over io_uring if they can and may.
func (r *reader) handshake() error {
	c := r.conn
	if err := r.read(); err != nil {
		if ended(err) {
			return errors.New("the FUSE connection ended before it began")
		}
		return err
	}
	if op := r.msg.Op(); op != opInit {
		return fmt.Errorf("the first FUSE request is not INIT, but has the number %d", op)
	}
	runners, err := c.prepare(r.msg.In[1])
	if err != nil && c.options.IOUring == On {
		r.write(r.msg.Fail(unix.EPROTONOSUPPORT))
		return fmt.Errorf("io_uring=on: %w", err)
	}
	n := c.handler.Answer(&r.msg)
	if runners != nil && (r.msg.Errno() != 0 || !accept(r.msg.Out[1][:n-outHeaderSize])) {
		closeAll(runners)
		runners = nil
	}
	r.write(n)
	if runners != nil {
		err = c.begin(runners)
		c.uring = err == nil
	}
	switch {
	case err == nil:
		return nil
	case c.options.IOUring == On:
		return fmt.Errorf("io_uring=on: %w", err)
	}
	c.log.Printf("requests come by /dev/fuse: %v", err)
	return nil
}

// prepare makes what io_uring takes, if the kernel offers it and it is wanted. Where nothing is wanted or offered there are
// none.
func (c *Conn) prepare(init []byte) ([]runner, error) {
	offered := len(init) >= inFlags2+4 &&
		binary.NativeEndian.Uint32(init[flagsOffset:])&flagInitExt != 0 &&
		binary.NativeEndian.Uint32(init[inFlags2:])&flagOverRing != 0
	switch {
	case c.options.IOUring == Off || !offered && c.options.IOUring == Auto:
		return nil, nil
	case !offered:
		return nil, errNotOffered()
	}
	return c.newRunners()
}

// SwitchedOff reports whether the kernel has FUSE over io_uring, and offers it to nobody because of Parameter.
func SwitchedOff() bool {
	text, err := os.ReadFile(Parameter)
	return err == nil && strings.TrimSpace(string(text)) != "Y"
}

func errNotOffered() error {
	if SwitchedOff() {
		return errors.New("the kernel's FUSE has it switched off: echo Y > " + Parameter)
	}
	return errors.New("the kernel has no FUSE over io_uring: Linux 6.14 or later with CONFIG_FUSE_IO_URING is needed")
}

// accept makes the answer to INIT say that requests may come over io_uring.
func accept(init []byte) bool {
	if len(init) < initOutSize {
		return false // to a kernel that has never heard of it
	}
	set := func(offset int, flag uint32) {
		binary.NativeEndian.PutUint32(init[offset:], binary.NativeEndian.Uint32(init[offset:])|flag)
	}
	set(flagsOffset, flagInitExt)
	set(outFlags2, flagOverRing)
	return true
}

// begin starts the threads. If one of them cannot register its entries, the kernel sends everything by /dev/fuse, and the
// others wait for nothing. They register one after the other, since the kernel takes the entry that came last.
func (c *Conn) begin(runners []runner) error {
	registered := make(chan error)
	for i, r := range runners {
		c.spawn(func() {
			r.run(r, func() error {
				err := r.register()
				registered <- err
				return err
			})
		})
		if err := <-registered; err != nil {
			closeAll(runners[i+1:])
			return err
		}
	}
	return nil
}
