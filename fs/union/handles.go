package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// handles are the open files, under the numbers that the kernel knows them by. It does not tell who opens a directory.
type handles struct {
	mu    sync.RWMutex
	next  uint64
	files map[uint64]*file
}

func newHandles() *handles { return &handles{next: 1, files: map[uint64]*file{}} }

func (h *handles) addFile(f *file) uint64 {
	if f.accmode != unix.O_RDONLY {
		f.node.writers.Add(1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	fh := h.next
	h.next++
	h.files[fh] = f
	return fh
}

func (h *handles) file(fh uint64) *file {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.files[fh]
}

func (h *handles) removeFile(fh uint64) {
	h.mu.Lock()
	f := h.files[fh]
	delete(h.files, fh)
	h.mu.Unlock()
	if f == nil {
		return
	}
	if f.accmode != unix.O_RDONLY {
		f.node.writers.Add(-1)
	}
	f.endIO()
	f.close()
}

// stat describes the file that n has open, and reports whether there is one.
func (h *handles) stat(n *node, st *unix.Stat_t) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, f := range h.files {
		if f.node == n && f.with(func(fd int) error { return layer.RefFD(fd).Stat(st) }) == nil {
			return true
		}
	}
	return false
}

// closeEverything closes what the kernel did not release, as after an abort.
func (h *handles) closeEverything() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.files {
		f.close()
	}
	clear(h.files)
}

// none reports whether no file is open.
func (h *handles) none() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.files) == 0
}

// nodes returns the nodes of the open files, some of them more than once.
func (h *handles) nodes() []*node {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := make([]*node, 0, len(h.files))
	for _, f := range h.files {
		list = append(list, f.node)
	}
	return list
}
