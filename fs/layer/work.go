package layer

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Work is the staging area of a union: the directory work in overlayfs's workdir. Objects are built here under
// temporary names and appear in the upper layer by one rename or link. What a crash leaves behind is removed by the
// next mount, ours or the kernel's, which uses the same directory in the same way (ovl_workdir_create).
type Work struct {
	base  *Dir // workdir itself
	dir   *Dir // workdir/work; nil before Prepare
	index *Dir // workdir/index; nil before OpenIndex
	next  atomic.Uint64

	leftovers int // see Leftovers

	lock, upperLock int // descriptors that hold the locks on workdir and upper
}

// openWork checks that workdir can serve upper and takes the locks on both, from prev if that is not nil.
func openWork(path string, upper *Layer, opt Options, prev *Previous) (*Work, error) {
	l, err := openUpper("work directory", path, upper.budget)
	if err != nil {
		return nil, err
	}
	w := &Work{base: l.Root, lock: -1, upperLock: -1}
	if err := w.check(upper); err != nil {
		w.close()
		return nil, err
	}
	makePrivate(upper.Root, w.base, opt)
	w.upperLock, w.lock, err = prev.lock(upper.Root, w.base)
	for err == unix.EWOULDBLOCK && w.ending() { // it may take long, but not for ever
		w.Unlock()
		w.upperLock, w.lock, err = prev.lock(upper.Root, w.base)
	}
	if err != nil {
		w.close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("upper layer %q or work directory %q is in use by another union: unmount that one first, or name other directories", upper.Path, path)
		}
		return nil, fmt.Errorf("lock work directory %q: %w", path, err)
	}
	if err := w.checkOverlays(upper, prev); err != nil { // after the locks: who releases them has mounted by then
		w.close()
		return nil, err
	}
	if prev == nil {
		err = w.base.RemoveAll(endingMark) // of a union that has not come to its end
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("remove %q in work directory %q: %w", endingMark, path, err)
	}
	if prev != nil {
		return w, nil // whose mark a volatile one is
	}
	if kind, err := w.incompatible(); err != nil || kind != "" {
		w.close()
		if err != nil {
			return nil, fmt.Errorf("read work directory %q: %w", path, err)
		}
		return nil, fmt.Errorf("upper layer %q was mounted %s and not unmounted cleanly: its data may be lost; to use it all the same, remove %q", upper.Path, kind, path+"/work/incompat/"+kind)
	}
	return w, nil
}

// check makes the tests of ovl_get_workdir and ovl_workdir_ok.
func (w *Work) check(upper *Layer) error {
	upperPath, workPath := upper.Path, w.base.layer.Path
	upperMount, err1 := sys.MountID(upper.Root.fd) // roots are always open
	workMount, err2 := sys.MountID(w.base.fd)
	same := upper.Dev == w.base.layer.Dev
	if err1 == nil && err2 == nil {
		same = same && upperMount == workMount
	}
	if !same {
		return fmt.Errorf("upper layer %q and work directory %q are on different file systems or mounts: choose a work directory beside the upper layer", upperPath, workPath)
	}
	for _, c := range []struct {
		inner, outer *Dir
	}{{w.base, upper.Root}, {upper.Root, w.base}} {
		inside, err := isInside(c.inner, c.outer)
		if err != nil {
			return fmt.Errorf("compare upper layer %q and work directory %q: %w", upperPath, workPath, err)
		}
		if inside {
			return fmt.Errorf("upper layer %q and work directory %q are the same or one is inside the other: choose a work directory beside the upper layer", upperPath, workPath)
		}
	}
	return nil
}

// isInside reports whether d is outer or below it.
func isInside(d, outer *Dir) (bool, error) {
	fd, err := d.Self().OpenPath()
	if err != nil {
		return false, err
	}
	return isBelow(fd, outer)
}

// isBelow reports whether the directory fd, which it closes, is outer or below it in the same file system.
func isBelow(fd int, outer *Dir) (bool, error) {
	defer func() { unix.Close(fd) }()
	var top, st, up unix.Stat_t
	if err := outer.Self().Stat(&top); err != nil {
		return false, err
	}
	for {
		if err := RefFD(fd).Stat(&st); err != nil {
			return false, err
		}
		if st.Dev != top.Dev {
			return false, nil // what is mounted in a directory is not part of it
		}
		if st.Ino == top.Ino {
			return true, nil
		}
		parent, err := sys.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return false, err
		}
		unix.Close(fd)
		fd = parent
		if err := RefFD(fd).Stat(&up); err != nil {
			return false, err
		}
		if up.Dev == st.Dev && up.Ino == st.Ino {
			return false, nil // ".." of the root is the root
		}
	}
}

// patience is how long to wait for a lock. umount(8) returns before the process that served a union has released it.
const patience = time.Second

// lockDir takes an exclusive lock on a directory, for as long as the descriptor that it returns is open. EWOULDBLOCK if
// somebody keeps it.
func lockDir(d *Dir) (int, error) {
	fd, err := d.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return fd, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			unix.Close(fd)
			return -1, err
		}
	}
}

// incompatible returns the name of the feature whose mark in work/incompat forbids to mount the upper again:
// "volatile" after a volatile mount that did not end cleanly (ovl_workdir_cleanup_recurse).
func (w *Work) incompatible() (string, error) {
	dir := w.base
	for _, name := range []string{"work", "incompat"} {
		sub, err := dir.OpenDir(name)
		if dir != w.base {
			dir.Close()
		}
		if err == unix.ENOENT {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		dir = sub
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil || len(names) == 0 {
		return "", err
	}
	return names[0], nil
}

// Prepare makes the staging directory, empty. Stage nothing before. It may be called again when nothing is staged.
func (w *Work) Prepare() error {
	w.leftovers = w.staged()
	if w.dir != nil {
		w.dir.Close()
		w.dir = nil
	}
	if err := w.base.RemoveAll("work"); err != nil {
		return err
	}
	dir, err := w.makeDir("work")
	w.dir = dir
	return err
}

// OpenIndex opens the directory index of workdir, which is made if it is not there, and stays when the union is
// unmounted.
func (w *Work) OpenIndex() (*Dir, error) {
	if w.index != nil {
		return w.index, nil
	}
	dir, err := w.base.OpenDir("index")
	if err == nil {
		err = dir.Pin()
	} else if err == unix.ENOENT {
		dir, err = w.makeDir("index")
	}
	w.index = dir
	return dir, err
}

// makeDir makes a directory in workdir in which nobody but us has business.
func (w *Work) makeDir(name string) (*Dir, error) {
	if err := w.base.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	dir, err := w.base.OpenDir(name)
	if err != nil {
		return nil, err
	}
	if err := dir.Pin(); err != nil {
		return dir, err
	}
	// A default ACL that the directory inherited would be inherited by everything staged in it.
	for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := dir.Self().Removexattr(acl); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return dir, err
		}
	}
	return dir, dir.Self().Chmod(0) // as the kernel makes it
}

// staged counts what is in the staging directory before it is prepared: 0 where that cannot be told, as the
// directory may have mode 0.
func (w *Work) staged() int {
	dir, err := w.base.OpenDir("work")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Names()
	return len(names)
}

// Leftovers is how many objects [Work.Prepare] has removed. A union that ended cleanly has left one at most, for the
// whiteouts of the next one to share.
func (w *Work) Leftovers() int { return w.leftovers }

// Dir is the staging directory.
func (w *Work) Dir() *Dir { return w.dir }

// TempName returns a name that nothing in the staging directory has. The form is the kernel's (ovl_tempname).
func (w *Work) TempName() string { return "#" + strconv.FormatUint(w.next.Add(1), 16) }

// MarkVolatile leaves the mark of a volatile mount, which [Work.ClearVolatile] takes away. A mount that finds it
// refuses the upper.
func (w *Work) MarkVolatile() error {
	if err := w.dir.Mkdir("incompat", 0o700); err != nil {
		return err
	}
	incompat, err := w.dir.OpenDir("incompat")
	if err != nil {
		return err
	}
	defer incompat.Close()
	return incompat.Mkdir("volatile", 0)
}

// ClearVolatile removes the mark of a volatile mount.
func (w *Work) ClearVolatile() error { return w.dir.RemoveAll("incompat") }

// MarkLazy notes that files of the upper layer may be copied in part only (cow.Lazy), until ClearLazy. The kernel leaves
// the mark alone, and refuses the files.
func (w *Work) MarkLazy() error {
	if err := w.base.Mkdir("lazy", 0); err != unix.EEXIST {
		return err
	}
	return nil
}

// ClearLazy takes back MarkLazy.
func (w *Work) ClearLazy() error { return w.base.RemoveAll("lazy") }

// endingMark is the directory in workdir that says that the union is unmounted, and copies what it has not copied yet:
// whoever mounts the next one waits for that, instead of being told that the upper layer is in use.
const endingMark = "ending"

// BeginEnd leaves the mark that the union only completes its files from now on; EndEnd takes it away.
func (w *Work) BeginEnd() error {
	if err := w.base.Mkdir(endingMark, 0); err != unix.EEXIST {
		return err
	}
	return nil
}

// EndEnd takes back BeginEnd.
func (w *Work) EndEnd() error { return w.base.RemoveAll(endingMark) }

// ending reports whether the union that has the locks is about to release them.
func (w *Work) ending() bool {
	var st unix.Stat_t
	return w.base.Stat(endingMark, &st) == nil
}

// LazyLeft reports whether the work directory at the path workdir has the mark of MarkLazy.
func LazyLeft(workdir string) bool {
	var st unix.Stat_t
	return sys.Fstatat(unix.AT_FDCWD, workdir+"/lazy", &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Lazy reports whether there is a mark of MarkLazy, of this mount or one before.
func (w *Work) Lazy() bool {
	var st unix.Stat_t
	return w.base.Stat("lazy", &st) == nil
}

func (w *Work) close() error {
	var errs []error
	for _, dir := range []*Dir{w.dir, w.index} {
		if dir != nil {
			errs = append(errs, dir.Close())
		}
	}
	w.Unlock()
	return errors.Join(append(errs, w.base.Close())...)
}
