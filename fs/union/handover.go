package union

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/union/transport"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// A union gives its place in the file tree to another one, of the same layers, in these steps:
//
//	Pause    nobody opens or looks up anything any more; then the upper layer is at rest
//	         (another backend opens the layers and is mounted underneath; this mount is taken away)
//	Retire   who still waits is sent to the new mount; who has something open goes on with it
//
// Resume goes back from the first step. Who is sent away gets ESTALE, upon which the kernel looks up the whole path
// once more, now into the new mount (retry_estale in fs/namei.c). So a caller that came by a path sees no error.
//
// A directory is opened without a request. So in all of this nothing is remembered, of the names in the root above all: who
// is on his way to a directory has to ask, and waits.
//
// After Retire the upper layer is another's, to whom every change of a name must be known. So names can be looked up
// but neither changed nor opened, and an object can be asked about only while it is open. Open files are read and written as before: for
// the other one that is as if one of its own users did it. Who has a directory open is known to who calls Retire.
//
// A union that takes the place of another one is opened with its gate closed (OpenNext), and opens it with Begin.

var _ mount.Yielding = (*view)(nil)
var _ mount.Next = (*view)(nil)

// Stack implements mount.Yielding.
func (v *view) Stack() *layer.Stack { return v.stack }

// Pause implements mount.Yielding.
func (v *view) Pause(ctx context.Context, closed func() (bool, error)) error {
	err := v.pause(ctx, closed)
	if err == nil {
		err = v.unmark() // it would keep the next one away
	}
	if err != nil {
		v.goOn()
	}
	return err
}

// goOn ends a pause.
func (v *view) goOn() {
	v.fs.leaving.Store(false)
	v.server.gate.set(gateOpen)
}

func (v *view) pause(ctx context.Context, closed func() (bool, error)) error {
	gate := v.server.gate
	if err := v.fs.finishLazy(); err != nil { // it may take long, so others go on
		return err
	}
	v.fs.leaving.Store(true)
	v.fs.forgetWays()
	for {
		if closed != nil {
			gate.set(gateDrain)
			if err := v.drain(ctx, closed); err != nil {
				return fmt.Errorf("wait until everything is closed: %w", err)
			}
		}
		gate.set(gateClosed)
		if err := gate.idle(ctx); err != nil {
			return fmt.Errorf("wait for requests at work: %w", err)
		}
		if err := v.fs.endLazy(); err != nil { // what was begun meanwhile
			return err
		}
		if closed == nil || v.fs.handles.none() { // one that was just being opened
			return nil
		}
	}
}

// drain waits until nothing is open. Files come first: whether they are is known here.
func (v *view) drain(ctx context.Context, closed func() (bool, error)) (err error) {
	pollErr := poll(ctx, func() bool {
		if !v.fs.handles.none() || v.server.gate.count() > 0 {
			return false
		}
		done := false
		done, err = closed()
		return done || err != nil
	})
	return errors.Join(err, pollErr)
}

// forgetWays makes the kernel ask on every way into the union, by the root and by the names in it. It opens a directory that
// it knows without a request, and to get there must be one for which who goes there has to wait.
//
// Precondition: fs.leaving is set, so that what is asked meanwhile is not remembered.
func (fs *FS) forgetWays() {
	fs.kernel.forgetAttributes(rootID)
	for _, n := range fs.nodes.all() {
		if parent, name := n.place(); parent == fs.root && n.isDir() && !n.isDead() {
			fs.kernel.forgetName(rootID, name)
		}
	}
}

// Resume implements mount.Yielding.
func (v *view) Resume() error {
	defer v.goOn()
	if v.stack.Work == nil {
		return nil
	}
	// Another backend may have emptied the work directory, and with it the whiteout that ours share.
	v.fs.newWhiteouts()
	return v.prepare()
}

// Retire implements mount.Yielding.
func (v *view) Retire(held []uint64) {
	v.fs.shared.Store(true)
	v.fs.held = map[uint64]bool{} // before the gate opens: nobody looks at it until then
	for _, ino := range held {
		v.fs.held[ino] = true
	}
	v.fs.pinOpen()
	if v.stack.Work != nil {
		v.stack.Work.Unlock()
	}
	v.server.gate.set(gateRetired)
	for _, n := range v.fs.handles.nodes() {
		v.server.forgetAttributes(n.id)
	}
	for _, n := range v.fs.nodes.all() {
		if n.isDir() && v.fs.held[n.ino.Load()] {
			v.server.forgetListing(n.id)
		}
	}
}

// AttachBeneath implements mount.Next.
func (v *view) AttachBeneath(old int) error {
	if err := sys.MoveBeneath(v.mountFD, old); err != nil {
		return err
	}
	return v.Release()
}

// Begin implements mount.Next.
func (v *view) Begin(gone <-chan struct{}) error {
	defer v.server.gate.set(gateOpen)
	if err := v.prepare(); err != nil {
		return err // reading goes on all the same
	}
	if v.stack.Work != nil {
		v.fs.root.dir.impure.Store(v.fs.hasMark(v.stack.Upper.Root, v.stack.Xattr.Impure)) // it may be new
	}
	if gone != nil {
		v.fs.shared.Store(true)
		go func() {
			select {
			case <-gone:
				v.fs.shared.Store(false)
			case <-v.done:
			}
		}()
	}
	return nil
}

// admit returns when the request may be worked on; the ticket is for leave. errGone if it never may be, errDropped if
// it is to be forgotten.
func (s *server) admit(m *transport.Message) (ticket, error) {
	c := classOf(m)
	switch {
	case c == aboutFile:
		return noTicket, nil
	case c == aboutOther:
		if s.gate.is(gateOpen) {
			return noTicket, nil
		}
		// Of a request that waits here nobody else knows. It is answered soon.
		return noTicket, errDropped
	}
	if t, ok := s.gate.enter(c); ok {
		return t, nil
	}
	if c == lookup || c == aboutNames || c == aboutNode && s.fs.open(m) {
		return noTicket, nil
	}
	return noTicket, errGone
}

var (
	errGone    = errors.New("the union was replaced")
	errDropped = errors.New("a request to be dropped")
)

// open reports whether a request about a node is about an open file or directory, and one that changes it about a file that
// is open for writing.
func (fs *FS) open(m *transport.Message) bool {
	n := fs.node(m.NodeID())
	if n == nil {
		return false
	}
	switch Operations[m.Op()] {
	case "setattr", "setxattr", "removexattr", "ioctl":
		return n.writers.Load() > 0
	}
	if n.isDir() {
		return fs.held[n.ino.Load()]
	}
	if fs.opensNothing() {
		return true // it is not known, and what is told of it stays true
	}
	return slices.Contains(fs.handles.nodes(), n)
}

// pinOpen makes open files independent of their names, which another one changes from now on.
func (fs *FS) pinOpen() {
	for _, n := range fs.handles.nodes() {
		n.mu.Lock()
		if n.pin < 0 && !n.isDir() && n.upper.Load() {
			if pin, err := n.refLocked().OpenPath(); err == nil {
				n.pin = int32(pin)
			}
		}
		n.mu.Unlock()
	}
}
