package union

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// People edit lower layers under a mounted union and expect to see what they did. So that the kernel may remember names
// and attributes all the same, the lower directories that it knows are watched by inotify(7), and it is told to forget
// what an event is about: see [watcher]. What cannot be watched is remembered for 50 ms.
//
// A directory is watched before it is looked into, so that no change is missed. An answer that was found before the
// change may still be on its way when the kernel is told to forget: it is told again once all such answers have been
// given (gate.grace).
//
// An event of a file comes by the directory of the name that it was changed through. So of a file of several names the
// attributes are not remembered for long. No event tells of a store into a shared mapping of a lower file, nor that a
// file got a second name somewhere else, by which it may be changed from then on: whoever opens such a file sees what
// is in it, but attributes may be old until the file is changed in another way.

// watcher hears of what others do in the lower layers, and tells the kernel.
type watcher struct {
	fs     *FS
	events *sys.Inotify
	ended  chan struct{} // closed when run has returned; nil before start
	floods atomic.Bool   // the kernel can be told to forget all names

	mu       sync.Mutex
	lookouts map[int][]lookout // by watch
	retry    time.Time         // when to try again after watches have run out
	told     bool              // the log has it
}

// lookout is a lower directory that is watched for a node.
type lookout struct {
	node *node
	dir  *layer.Dir
}

const (
	// watched are the events that change what a union shows. Those of an entry include its contents.
	watched = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_MODIFY | unix.IN_ONLYDIR

	// renaming are those that change what the names of a directory stand for.
	renaming = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO

	// watchRetry is how long nothing is watched after watches have run out, rather than to fail at every directory.
	watchRetry = time.Second
)

// watch makes fs watch its lower layers from now on; start follows. If it cannot, that is logged, and nothing of them is
// remembered for long.
func (fs *FS) watch() {
	opt := fs.stack.Spec.Options
	if opt.LowerImmutable || opt.FUSE.Remember.Given {
		return
	}
	events, err := sys.NewInotify()
	if err != nil {
		fs.log.Printf("lower layers are not watched, so that little is remembered of them: %v%s", err, watchFix(err))
		return
	}
	fs.watcher = &watcher{fs: fs, events: events, lookouts: map[int][]lookout{}}
	fs.watcher.add(fs.root)
}

func watchFix(err error) string {
	switch err {
	case unix.EMFILE:
		return ": raise fs.inotify.max_user_instances"
	case unix.ENOSPC:
		return ": raise fs.inotify.max_user_watches"
	}
	return ""
}

// start begins to tell the kernel, which is there now, of what has happened since watch.
func (w *watcher) start() {
	if w != nil {
		w.ended = make(chan struct{})
		go w.run()
	}
}

// stop ends all watches. The kernel has let go of the file system.
func (w *watcher) stop() {
	if w == nil {
		return
	}
	w.events.Close()
	if w.ended != nil {
		<-w.ended
	}
}

// add watches the lower directories of n, and reports whether all of them are watched now.
func (w *watcher) add(n *node) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.retry.IsZero() && time.Now().Before(w.retry) {
		return false
	}
	d := n.dir
	for _, dir := range d.lowers {
		if err := w.addDirLocked(n, dir); err != nil {
			w.failedLocked(err)
			w.removeLocked(n)
			return false
		}
	}
	d.watched.Store(true)
	return true
}

var errNotLocal = errors.New("the layer is on a file system that others may change")

func (w *watcher) addDirLocked(n *node, dir *layer.Dir) error {
	if !dir.Layer().Local {
		return errNotLocal
	}
	fd, err := dir.Hold()
	if err != nil {
		return err
	}
	defer dir.Done()
	watch, err := w.events.Add(fd, watched)
	if err != nil {
		return err
	}
	w.lookouts[watch] = append(w.lookouts[watch], lookout{node: n, dir: dir})
	n.dir.watches, n.dir.watcher = append(n.dir.watches, watch), w
	return nil
}

func (w *watcher) failedLocked(err error) {
	if err != unix.ENOSPC && err != unix.ENOMEM {
		return // it is about this directory
	}
	w.retry = time.Now().Add(watchRetry)
	if !w.told {
		w.told = true
		w.fs.log.Printf("not all of the lower layers can be watched, so that little is remembered of the rest: %v%s", err, watchFix(err))
	}
}

// remove ends the watches of n, of which nobody asks any more.
func (w *watcher) remove(n *node) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(n)
}

func (w *watcher) removeLocked(n *node) {
	n.dir.watched.Store(false)
	for _, watch := range n.dir.watches {
		rest := slices.DeleteFunc(w.lookouts[watch], func(l lookout) bool { return l.node == n })
		if len(rest) > 0 {
			w.lookouts[watch] = rest
			continue
		}
		delete(w.lookouts, watch)
		w.events.Remove(watch)
	}
	n.dir.watches = nil
}

// gone drops a watch that has ended with its directory, in which nothing will change any more.
func (w *watcher) gone(watch int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.lookouts, watch)
}

// of returns who is interested in a watch.
func (w *watcher) of(watch int) []lookout {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lookouts[watch])
}

// count is how many directories are watched.
func (w *watcher) count() int {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.lookouts)
}

// change is an event without what has happened.
type change struct {
	watch int
	name  string // empty: the directory itself
}

// run tells the kernel of changes until stop.
func (w *watcher) run() {
	defer close(w.ended)
	w.floods.Store(w.fs.kernel.forgetNames() == nil)
	buf := make([]byte, 64<<10)
	for {
		changes := map[change]uint32{} // with what has happened
		lost := false
		err := w.events.Read(buf, func(e sys.Event) {
			lost = lost || e.Mask&unix.IN_Q_OVERFLOW != 0
			changes[change{e.Watch, string(e.Name)}] |= e.Mask
		})
		if err != nil {
			return // closed
		}
		if lost {
			w.tellAll()
			continue
		}
		w.tell(changes)
		if w.fs.kernel.grace() {
			w.tell(changes)
		}
		if w.fs.observer != nil {
			w.fs.observer.LowerChanged(len(changes))
		}
	}
}

// tell makes the kernel forget what changes are about.
func (w *watcher) tell(changes map[change]uint32) {
	renamed := map[*node]bool{}
	for c, mask := range changes {
		lookouts := w.of(c.watch)
		if mask&unix.IN_IGNORED != 0 {
			w.gone(c.watch)
		}
		for _, l := range lookouts {
			switch {
			case c.name == "":
				w.fs.kernel.forgetNode(l.node.id)
			default:
				w.tellEntry(l, c.name, mask)
				renamed[l.node] = renamed[l.node] || mask&renaming != 0
			}
		}
	}
	for n, is := range renamed {
		if is {
			w.fs.kernel.forgetNode(n.id)
		}
	}
}

// tellEntry makes the kernel look up a name again, and forget what it knows of the file that has the name: somebody may
// have it open, and not look up anything.
func (w *watcher) tellEntry(l lookout, name string, mask uint32) {
	kernel := w.fs.kernel
	if w.fs.options().AUFSMarks && whiteout.IsAUFS(name) {
		l.dir.ForgetAUFSNames()
		if hidden, ok := whiteout.AUFSHidden(name); ok {
			l.node.dir.names.mark(hidden)
			kernel.forgetName(l.node.id, hidden)
		}
		return
	}
	if mask&renaming != 0 {
		l.node.dir.names.mark(name)
	}
	kernel.forgetName(l.node.id, name)
	e := entry{where: inLower, dir: l.dir}
	if err := l.dir.Stat(name, &e.st); err == nil {
		if n := w.fs.peek(l.node, name, &e); n != nil {
			kernel.forgetNode(n.id)
			return
		}
	}
	for _, n := range w.fs.handles.nodes() { // one that has lost the name
		if parent, at := n.place(); parent == l.node && at == name {
			kernel.forgetNode(n.id)
		}
	}
}

// tellAll makes the kernel forget all that it remembers of the lower layers: more has happened than could be told.
func (w *watcher) tellAll() {
	kernel := w.fs.kernel
	_ = kernel.forgetNames() // if it cannot, names that are not there have not been remembered for long
	for range 2 {
		for _, n := range w.fs.nodes.all() {
			if parent, name := n.place(); parent != nil {
				kernel.forgetName(parent.id, name)
			}
			if n.isDir() {
				n.dir.names.forget()
			}
			if n.isDir() || !n.upper.Load() {
				kernel.forgetNode(n.id)
			}
		}
		if !kernel.grace() {
			return
		}
		_ = kernel.forgetNames()
	}
}
