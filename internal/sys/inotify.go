package sys

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Inotify is an instance of inotify(7).
type Inotify struct {
	file *os.File // waits for events without a thread of its own

	mu sync.RWMutex
	fd int // -1 once it is closed
}

// Event is one event of a watched directory. Name is that of the entry that it is about, or empty if it is about the
// directory itself. It is valid only inside the callback.
type Event struct {
	Watch int // -1 with IN_Q_OVERFLOW: events were lost
	Mask  uint32
	Name  []byte
}

// NewInotify makes an instance. EMFILE: the user has too many (fs.inotify.max_user_instances).
func NewInotify() (*Inotify, error) {
	fd, err := open("inotify_init1", func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) })
	if err != nil {
		return nil, err
	}
	return &Inotify{file: os.NewFile(uintptr(fd), "inotify"), fd: fd}, nil
}

// Add watches the object that the descriptor fd, O_PATH or not, refers to, for the events of mask. A watch belongs to
// the object, not to a name or a mount: an object that is watched already has the same watch again. ENOSPC: the user
// has too many (fs.inotify.max_user_watches).
func (i *Inotify) Add(fd int, mask uint32) (watch int, err error) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.fd < 0 {
		return -1, unix.EBADF
	}
	return try1("inotify_add_watch", func() (int, error) { return unix.InotifyAddWatch(i.fd, ProcPath(fd, ""), mask) })
}

// Remove ends a watch. It fails if the object is gone, which is no matter.
func (i *Inotify) Remove(watch int) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.fd >= 0 {
		_, _ = unix.InotifyRmWatch(i.fd, uint32(watch))
	}
}

// Read waits for events and calls f for each of those that are there.
func (i *Inotify) Read(buf []byte, f func(Event)) error {
	n, err := i.file.Read(buf)
	if err != nil {
		return err
	}
	for buf = buf[:n]; len(buf) >= unix.SizeofInotifyEvent; {
		// struct inotify_event: wd s32, mask u32, cookie u32, len u32, name padded with NUL
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name := buf[unix.SizeofInotifyEvent:size]
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
		f(Event{
			Watch: int(int32(binary.NativeEndian.Uint32(buf))),
			Mask:  binary.NativeEndian.Uint32(buf[4:]),
			Name:  name,
		})
		buf = buf[size:]
	}
	return nil
}

// Close ends all watches, and Read.
func (i *Inotify) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fd = -1
	return i.file.Close()
}
