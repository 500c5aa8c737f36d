package union

import "encoding/binary"

// What the kernel remembers it can be told to forget (FUSE_NOTIFY_*, linux/fuse.h). For that it may wait for locks that
// it holds while it waits for an answer of ours: for a name those of the directory, for data those of the pages. So who
// tells it holds no lock of this package, and answers no request.

const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyIncEpoch   = 8
)

// notify sends a message. ENOENT: the kernel does not remember what it is about, which is as well.
func (s *server) notify(code uint32, body []byte) error {
	const header = 16 // struct fuse_out_header, with unique 0
	msg := make([]byte, header, header+len(body))
	binary.NativeEndian.PutUint32(msg, uint32(header+len(body)))
	binary.NativeEndian.PutUint32(msg[4:], code)
	return s.conn.Notify(append(msg, body...))
}

// forgetAttributes makes the kernel ask for the attributes of a node again. It waits for nothing, so unlike the others it
// may be called while a request for the node is at work.
func (s *server) forgetAttributes(id uint64) {
	_ = s.notify(notifyInvalInode, invalInode(id, -1)) // an offset that spares the data
}

// forgetNode makes the kernel ask for the attributes, the data or the target of a node again, and for its entries if
// they are to be listed.
func (s *server) forgetNode(id uint64) { _ = s.notify(notifyInvalInode, invalInode(id, 0)) }

// forgetListing makes the kernel read the names of a directory again, which it would keep for good. It waits for the pages
// that have them, so a request for them may do this before it is answered: who waits for an answer holds none.
func (s *server) forgetListing(id uint64) { s.forgetNode(id) }

// invalInode is struct fuse_notify_inval_inode_out: all from the offset on.
func invalInode(id uint64, offset int64) []byte {
	body := binary.NativeEndian.AppendUint64(nil, id)
	body = binary.NativeEndian.AppendUint64(body, uint64(offset))
	return binary.NativeEndian.AppendUint64(body, 0)
}

// forgetName makes the kernel look up a name again, also if there was nothing of that name. What is mounted on it stays,
// from Linux 6.2 on.
func (s *server) forgetName(parent uint64, name string) {
	const expireOnly = 1                                  // FUSE_EXPIRE_ONLY
	body := binary.NativeEndian.AppendUint64(nil, parent) // struct fuse_notify_inval_entry_out
	body = binary.NativeEndian.AppendUint32(body, uint32(len(name)))
	body = binary.NativeEndian.AppendUint32(body, expireOnly)
	_ = s.notify(notifyInvalEntry, append(append(body, name...), 0))
}

// forgetNames makes the kernel look up all names again. EINVAL before Linux 6.16, which cannot be told so.
func (s *server) forgetNames() error { return s.notify(notifyIncEpoch, nil) }

// soon calls f from where no lock is held, for a request that is at work. The connection is not closed before it returns.
// In tests without a server there is nobody to tell.
func (s *server) soon(f func()) {
	if s != nil {
		s.conn.Go(f)
	}
}
