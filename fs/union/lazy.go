package union

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Unless lazy=off, who opens a large lower file for writing does not wait for its data to be copied. The node is a metacopy
// then, of a kind of ours (cow.Lazy): what is read comes from both files, what is written goes to the upper one, and a
// filler copies the rest in the background. Whatever needs more than to read, write and sync, and to change metadata,
// finishes the filling first: a new size, a new name, a hole that is punched. So does the end of the union.

// lazyFrom is from what size on files are copied up lazily, in bytes. A smaller one is copied in a few milliseconds.
const lazyFrom = 4 << 20

// lazyFile is the data of a node that is being filled, or was: it stays with the node, since a request may be at work.
type lazyFile struct {
	*cow.Lazy
	fs   *FS
	node *node

	finishMu sync.Mutex // one that finishes at a time
	held     bool       // the filler knows of it, and holds the node; guarded by filler.mu
}

// filler is what fills files in the background, one after the other. A failure, for lack of space as a rule, is nobody's
// who could be told: the log tells, and it is tried again.
type filler struct {
	from  int64         // the smallest file that is copied up lazily
	delay time.Duration // how long to wait before the first is filled

	stop context.CancelFunc // ends it; what is left is for endLazy
	done <-chan struct{}    // closed then

	mu      sync.Mutex
	queue   []*lazyFile // those that are to be filled; each holds its node
	running bool
	marked  bool // the work directory says that there may be such files

	search sync.WaitGroup // for what earlier mounts have left
	ended  sync.WaitGroup // the filler
}

// filling returns the lazy data of n, or nil if it has none, or all of them.
func (n *node) filling() *lazyFile {
	if l := n.lazy.Load(); l != nil && n.meta.Load() {
		return l
	}
	return nil
}

// changing runs f, which changes the metadata of n.
func (n *node) changing(f func() error) error {
	if l := n.filling(); l != nil {
		return l.Do(f)
	}
	return f()
}

// name is for messages.
func (l *lazyFile) name() string {
	_, name := l.node.place()
	return name
}

// with is file.with for what is done with the copy alone.
func (l *lazyFile) with(do func(fd int) error) error { return do(l.FD()) }

// mayBeLazy reports whether src may be copied up lazily. With passthrough=all a file may have two nodes, and with an
// index two names.
func (fs *FS) mayBeLazy(n *node, src *cow.Source, opt cow.Options) bool {
	o := fs.options()
	return o.Lazy != layer.LazyOff && o.Passthrough != layer.PassthroughAll &&
		n.kind == unix.S_IFREG && src.Stat.Size >= fs.filler.from && src.Data == (layer.Ref{}) && !opt.NoData && !opt.Metacopy &&
		fs.override == "" && !fs.stack.Xattr.User() && !fs.stack.Spec.Options.Indexes()
}

// copyUpLazily makes n a node of the upper layer whose data are copied later. It reports false if that cannot be.
//
// Precondition: n.copyMu is held.
func (fs *FS) copyUpLazily(n *node, src cow.Source, opt cow.Options) (done bool, err error) {
	if err := fs.markLazy(); err != nil {
		return false, err
	}
	staged, lazy, err := fs.copier.BuildLazy(src, opt)
	if staged == nil || err != nil {
		return false, err
	}
	defer staged.Discard()
	if !lazy {
		return true, fs.publishCopy(n, staged, !opt.Origin, -1)
	}
	l, err := fs.openLazy(n, staged.Ref(), src.Ref, src.Stat.Size)
	if err != nil {
		return false, err
	}
	data, err := src.Ref.OpenPath()
	if err != nil {
		l.Close()
		return false, err
	}
	n.lazy.Store(l) // before it is a metacopy
	if err := fs.publishCopy(n, staged, !opt.Origin, data); err != nil {
		n.lazy.Store(nil) // nobody has used it: it was none
		l.Close()
		unix.Close(data)
		return false, err
	}
	l.enqueue()
	return true, nil
}

func (fs *FS) openLazy(n *node, upper, lower layer.Ref, limit int64) (*lazyFile, error) {
	dst, err := upper.Open(unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	src, err := lower.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		unix.Close(dst)
		return nil, err
	}
	l, err := cow.OpenLazy(dst, src, limit)
	if err != nil {
		unix.Close(dst)
		unix.Close(src)
		return nil, err
	}
	return &lazyFile{Lazy: l, fs: fs, node: n}, nil
}

// resumeLazy makes n, which another mount has begun to copy up, what it was then. EIO if the lower file is not what it was,
// or if n is not in the upper layer: its data cannot be told.
//
// Preconditions: as for findData.
func (fs *FS) resumeLazy(parent, n *node, e *entry) error {
	if e.where != inUpper || fs.writable() != nil {
		fs.log.Printf("%q was not copied up completely: mount its layer as the upper one of the same layers, to be written, and unmount", n.name)
		return unix.EIO
	}
	ref := e.dir.At(n.name)
	m := merger{fs: fs, parent: parent.dir, next: e.below, name: n.name}
	lower, _, err := m.nextFile()
	if err != nil {
		return err
	}
	data, err := lower.OpenPath()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	var mark [256]byte
	got := 0
	if err = layer.RefFD(data).Stat(&st); err == nil {
		got, err = ref.GetxattrInto(fs.stack.Xattr.Metacopy, mark[:])
	}
	if err == nil && string(mark[:got]) != string(cow.LazyMark(&st)) {
		fs.log.Printf("%q was not copied up completely, and the lower file has changed since: its data are lost; remove it", n.name)
		err = unix.EIO
	}
	if err != nil {
		unix.Close(data)
		return err
	}
	l, err := fs.openLazy(n, ref, layer.RefFD(data), min(st.Size, e.st.Size))
	if err != nil {
		unix.Close(data)
		return err
	}
	n.lazy.Store(l)
	n.setData(data)
	return nil
}

// truncate makes the file an empty one, of which nothing is to be copied.
//
// Precondition: node.copyMu is held.
func (l *lazyFile) truncate() error {
	return l.end(func() error { return l.Truncate() })
}

// finish returns when all data are copied.
func (l *lazyFile) finish() error {
	return l.end(func() error {
		for more := true; more; {
			var err error
			if more, err = l.Fill(); err != nil {
				return err
			}
		}
		if !l.fs.syncs() {
			return nil
		}
		return sys.Fdatasync(l.FD()) // what the mark stands for must be on disk before it goes
	})
}

// end makes the node a plain file after all has been done for that.
func (l *lazyFile) end(all func() error) error {
	l.finishMu.Lock()
	defer l.finishMu.Unlock()
	n := l.node
	if n.filling() == nil { // somebody else was faster
		return nil
	}
	if err := all(); err != nil {
		return err
	}
	if err := cow.Unmark(layer.RefFD(l.FD()), l.fs.stack.Xattr); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setData(-1)
	return nil
}

// enqueue makes the filler take care of the file.
func (l *lazyFile) enqueue() {
	fs := l.fs
	if fs.options().Lazy == layer.LazyKeep {
		return
	}
	f := &fs.filler
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.held || fs.nodes.hold(l.node.id) == nil {
		return
	}
	l.held = true
	f.queue = append(f.queue, l)
	if !f.running {
		f.running = true
		f.ended.Add(1)
		go fs.fill()
	}
}

// newFiller returns a filler that waits for files.
func newFiller() filler {
	ctx, stop := context.WithCancel(context.Background())
	return filler{from: lazyFrom, delay: fillDelay, stop: stop, done: ctx.Done()}
}

// take returns the file to be filled next, or nil; then the filler has ended.
func (f *filler) take() *lazyFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.done:
		f.running = false
		return nil
	default:
	}
	if len(f.queue) == 0 {
		f.running = false
		return nil
	}
	return f.queue[0]
}

// postpone puts the file that take returned behind the others, and reports how many there are.
func (f *filler) postpone() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue[1:], f.queue[0])
	return len(f.queue)
}

// wait waits for so long, or until the filler is to end.
func (f *filler) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.done:
	}
}

// left is how many bytes are still to be filled.
func (f *filler) left() (bytes int64) {
	f.mu.Lock()
	queue := slices.Clone(f.queue)
	f.mu.Unlock()
	for _, l := range queue {
		bytes += l.Left()
	}
	return bytes
}

func (f *filler) drop(l *lazyFile) {
	f.mu.Lock()
	for i, q := range f.queue {
		if q == l {
			f.queue = append(f.queue[:i], f.queue[i+1:]...)
			break
		}
	}
	l.held = false
	f.mu.Unlock()
	l.fs.nodes.forget(l.node.id, 1)
}

const (
	// fillDelay is how long the filler waits before it begins: whoever opened the file is about to use it.
	fillDelay = 20 * time.Millisecond

	// After a failure it waits for this long before it tries again, then twice as long, up to the longest.
	firstRetry, lastRetry = time.Second, time.Minute
)

// fill copies what is to be filled, at low priority, until nothing is.
func (fs *FS) fill() {
	defer fs.filler.ended.Done()
	runtime.LockOSThread() // and never unlocked: the thread, whose priority is low, ends with the goroutine
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	f := &fs.filler
	f.wait(f.delay)
	failed, pause := 0, firstRetry // how many files in a row failed; how long to wait when all have
	for l := f.take(); l != nil; l = f.take() {
		err := error(nil)
		if !l.node.isDead() {
			err = l.finish()
		}
		if err == nil {
			f.drop(l)
			failed, pause = 0, firstRetry
			continue
		}
		fs.log.Printf("copy the data of %q up: %v; it is tried again in %v, and when the union is unmounted", l.name(), err, pause)
		if fs.observer != nil {
			fs.observer.FillFailed()
		}
		if failed++; failed >= f.postpone() {
			f.wait(pause)
			failed, pause = 0, min(2*pause, lastRetry)
		}
	}
}

// finishLazy fills all that is not yet, in the nodes that are known. With lazy=keep it leaves them.
func (fs *FS) finishLazy() error {
	fs.filler.search.Wait()
	if fs.options().Lazy == layer.LazyKeep || fs.writable() != nil || !fs.stack.Work.Lazy() {
		return nil
	}
	var errs []error
	for _, l := range fs.nodes.lazy() {
		if l.node.isDead() {
			continue
		}
		if err := l.finish(); err != nil {
			fs.log.Printf("copy the data of %q up: %v; mount the union again when that is remedied", l.name(), err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// endLazy is finishLazy when no file can be opened any more. Who mounts the same layers again meanwhile waits for it.
func (fs *FS) endLazy() error {
	if fs.options().Lazy == layer.LazyKeep || fs.writable() != nil {
		return nil
	}
	if fs.stack.Work.Lazy() {
		if err := fs.stack.Work.BeginEnd(); err != nil {
			fs.log.Printf("mark the work directory: %v; who mounts the union now may be told that it is in use", err)
		}
		defer func() { _ = fs.stack.Work.EndEnd() }() // else the next union does it
	}
	if err := fs.finishLazy(); err != nil {
		return err
	}
	fs.filler.mu.Lock()
	defer fs.filler.mu.Unlock()
	fs.filler.marked = false
	return fs.stack.Work.ClearLazy()
}

// markLazy notes on disk that there may be files to fill.
func (fs *FS) markLazy() error {
	fs.filler.mu.Lock()
	defer fs.filler.mu.Unlock()
	if fs.filler.marked {
		return nil
	}
	err := fs.stack.Work.MarkLazy()
	fs.filler.marked = err == nil
	return err
}

// resumeFilling looks for files that earlier mounts have not filled, in the background.
func (fs *FS) resumeFilling() {
	if fs.writable() != nil || !fs.stack.Work.Lazy() {
		return
	}
	fs.filler.search.Add(1)
	go func() {
		defer fs.filler.search.Done()
		fs.searchLazy(fs.root)
	}()
}

// searchLazy goes through the upper directory of n and those below. What it cannot look at it leaves to whoever uses it.
func (fs *FS) searchLazy(n *node) {
	upper := n.dir.upper.Load()
	if upper == nil {
		return
	}
	var names []string
	_ = upper.Entries(func(e sys.Dirent) error {
		if e.Type == unix.DT_DIR || e.Type == unix.DT_REG || e.Type == unix.DT_UNKNOWN {
			names = append(names, string(e.Name))
		}
		return nil
	})
	for _, name := range names {
		if _, lazy, _ := fs.isMetacopy(upper.At(name)); !lazy {
			var st unix.Stat_t
			if err := upper.Stat(name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
		}
		child := fs.lookupChild(n, name)
		if child == nil {
			continue
		}
		if child.isDir() {
			fs.searchLazy(child)
		} else if l := child.filling(); l != nil {
			l.enqueue()
		}
		fs.nodes.forget(child.id, 1)
	}
}

// lookupChild looks a name up as the kernel would; the caller forgets the node.
func (fs *FS) lookupChild(parent *node, name string) *node {
	fs.renameMu.RLock()
	defer fs.renameMu.RUnlock()
	parent.dir.entriesMu.RLock()
	defer parent.dir.entriesMu.RUnlock()
	n, _, err := fs.lookupLocked(parent, name)
	if err != nil {
		return nil
	}
	return n
}
