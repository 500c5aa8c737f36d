package union

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/union/transport"
)

// Backend serves unions over FUSE, from the process that opened them. It implements mount.Backend.
type Backend struct {
	// Log takes what cannot be told to a caller: faults of the layers' file systems and of ours. nil discards it.
	Log *log.Logger

	// Observer, if not nil, is told what the union does. It serves one Open.
	Observer Observer

	// LazyFrom is from how many bytes on files are copied up lazily; 0 for what is best.
	LazyFrom int64

	// LazyDelay is how long after the first write to such a file the rest of its data begins to be copied in the background;
	// 0 for what is best.
	LazyDelay time.Duration
}

var _ mount.Backend = Backend{}

// Name implements mount.Backend.
func (Backend) Name() string { return "fuse" }

// Supports implements mount.Backend.
func (Backend) Supports(_ context.Context, spec layer.Spec) error {
	if err := supported(spec); err != nil {
		return err
	}
	conn, err := transport.Open()
	if err != nil {
		return fmt.Errorf("%w (%w)", err, errors.ErrUnsupported)
	}
	conn.Close()
	fsfd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%w (%w)", fsopenError(err), errors.ErrUnsupported)
	}
	return unix.Close(fsfd)
}

// supported reports whether a union as spec says can be served, whatever the host.
func supported(spec layer.Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	return nil
}

// initTimeout bounds how long the kernel may take to say the first word.
const initTimeout = 10 * time.Second

// Open implements mount.Backend.
func (b Backend) Open(ctx context.Context, spec layer.Spec) (mount.View, error) {
	return b.OpenNext(ctx, spec, nil)
}

// OpenNext implements mount.Successor: in the place of prev, the view answers nobody before Begin, and does not touch
// what is on disk.
func (b Backend) OpenNext(ctx context.Context, spec layer.Spec, prev *layer.Previous) (mount.View, error) {
	if err := supported(spec); err != nil {
		return nil, err
	}
	logger := b.Log
	if logger == nil {
		logger = log.New(io.Discard, "", 0)
	}
	v := &view{mountFD: -1, done: make(chan struct{})}
	ok := false
	defer func() {
		if !ok {
			v.Close()
		}
	}()
	var err error
	if v.stack, err = layer.OpenNext(spec, prev); err != nil {
		return nil, err
	}
	if v.fs, err = newFS(v.stack, logger); err != nil {
		return nil, fmt.Errorf("open the layers: %w", err)
	}
	gate := newGate(gateClosed)
	if prev == nil {
		gate = newGate(gateOpen)
		if err := v.prepare(); err != nil {
			return nil, err
		}
	}
	v.fs.filler.from = cmp.Or(b.LazyFrom, lazyFrom)
	v.fs.filler.delay = cmp.Or(b.LazyDelay, fillDelay)
	if b.Observer != nil {
		v.fs.observe(b.Observer)
	}
	conn, err := transport.Open()
	if err != nil {
		return nil, err
	}
	if v.mountFD, err = detachedMount(conn.FD(), v.stack); err != nil {
		conn.Close()
		return nil, err
	}
	if v.connection, err = connectionID(v.mountFD); err != nil {
		conn.Close()
		return nil, err
	}
	v.fs.watch()
	var began <-chan error
	v.server, began = serve(conn, v.fs, gate, logger)
	v.fs.watcher.start()
	if prev == nil {
		v.fs.resumeFilling()
	}
	go v.watch()

	timer := time.NewTimer(initTimeout)
	defer timer.Stop()
	select {
	case err := <-began:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("the kernel did not answer on /dev/fuse within %v", initTimeout)
	}
	ok = true
	return v, nil
}

// prepare makes the work directory ready to stage in.
func (v *view) prepare() error {
	work, spec := v.stack.Work, v.stack.Spec
	if work == nil {
		return nil
	}
	if err := work.Prepare(); err != nil {
		return fmt.Errorf("empty work directory %q: %w", spec.Work, err)
	}
	if v.fs.index != nil {
		if err := v.fs.index.Clean(); err != nil {
			return fmt.Errorf("clean the index %q: remove it, or mount with index=off: %w", spec.Work+"/index", err)
		}
	}
	if !spec.Options.Volatile {
		return nil
	}
	if err := work.MarkVolatile(); err != nil {
		return fmt.Errorf("mark work directory %q as volatile: %w", spec.Work, err)
	}
	v.marked.Store(true)
	return nil
}

// unmark removes the mark that prepare has left in the work directory of a volatile union.
func (v *view) unmark() error {
	if !v.marked.Swap(false) {
		return nil
	}
	return v.stack.Work.ClearVolatile()
}

// detachedMount makes a FUSE file system that answers on device, mounted nowhere yet. The first request waits in the
// device already when it returns.
func detachedMount(device int, stack *layer.Stack) (int, error) {
	fsfd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fsopenError(err)
	}
	defer unix.Close(fsfd)

	opt := stack.Spec.Options
	var root unix.Stat_t
	top := stack.Upper
	if top == nil {
		top = stack.Lowers[0]
	}
	if err := top.Root.Self().Stat(&root); err != nil {
		return -1, fmt.Errorf("stat %q: %w", top.Path, err)
	}
	settings := [][2]string{
		{"source", orDefault(opt.FsName, "unionfsd")},
		{"subtype", orDefault(opt.Subtype, "unionfsd")},
		{"fd", strconv.Itoa(device)},
		{"rootmode", strconv.FormatUint(uint64(root.Mode&unix.S_IFMT), 8)},
		{"user_id", strconv.Itoa(os.Getuid())},
		{"group_id", strconv.Itoa(os.Getgid())},
		{"max_read", strconv.Itoa(transport.MaxData)},
	}
	for _, s := range settings {
		if err := unix.FsconfigSetString(fsfd, s[0], s[1]); err != nil {
			return -1, fmt.Errorf("FUSE mount option %s=%s: %w", s[0], s[1], err)
		}
	}
	// The kernel checks the permissions of every caller on what the union shows, as overlayfs does.
	flags := []string{"default_permissions", "allow_other"}
	attrs := int(opt.AtimeAttr()) // for who looks at the mount; what is read is of the layers, see layer.Work
	if stack.Upper == nil || opt.ReadOnly {
		flags = append(flags, "ro")
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	for _, f := range flags {
		if err := unix.FsconfigSetFlag(fsfd, f); err != nil {
			return -1, fmt.Errorf("FUSE mount option %s: %w", f, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("create the FUSE file system: %w", err)
	}
	for _, a := range []struct {
		on   bool
		attr int
	}{{opt.NoSuid, unix.MOUNT_ATTR_NOSUID}, {opt.NoDev, unix.MOUNT_ATTR_NODEV}, {opt.NoExec, unix.MOUNT_ATTR_NOEXEC}} {
		if a.on {
			attrs |= a.attr
		}
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount the FUSE file system: %w", err)
	}
	return fd, nil
}

func fsopenError(err error) error {
	switch err {
	case unix.EPERM:
		return errors.New("mounting is not allowed: run as root, or in a user namespace of your own (unshare -Urm)")
	case unix.ENODEV:
		return errors.New("the kernel has no FUSE: load the module (modprobe fuse)")
	case unix.ENOSYS:
		return errors.New("the kernel has no fsopen(2): Linux 5.2 or later is needed")
	default:
		return fmt.Errorf("fsopen fuse: %w", err)
	}
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// view is a union that this process serves. It implements mount.View.
type view struct {
	stack   *layer.Stack
	fs      *FS
	server  *server
	mountFD int // of the detached mount; -1 once it is attached or released

	connection uint64 // see connectionID

	marked atomic.Bool // the work directory has our mark of a volatile union

	done chan struct{} // closed when the device is not served any more
	err  error         // why; valid once done is closed

	closeOnce sync.Once
	closeErr  error
}

// watch waits for the end of the union and releases the layers at once: who unmounts a union expects to be able to
// unmount what is below it.
func (v *view) watch() {
	err := v.server.conn.Wait()
	v.fs.filler.stop()
	lazyErr := v.fs.endLazy()
	v.fs.close()
	if err == nil {
		err = lazyErr
	}
	if err == nil {
		err = v.unmark()
	}
	if closeErr := v.stack.Close(); err == nil {
		err = closeErr
	}
	v.err = err
	close(v.done)
}

// FD implements mount.View.
func (v *view) FD() int { return v.mountFD }

// Attach implements mount.View.
func (v *view) Attach(target string) error {
	err := unix.MoveMount(v.mountFD, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	switch err {
	case nil:
		return v.Release() // the descriptor would keep the union busy: it could not be unmounted
	case unix.ENOENT:
		return fmt.Errorf("mount point %q does not exist: create the directory first", target)
	case unix.ENOTDIR:
		return fmt.Errorf("mount point %q is not a directory: name a directory", target)
	default:
		return fmt.Errorf("attach to %q: %w", target, err)
	}
}

// Release implements mount.View.
func (v *view) Release() error {
	if v.mountFD < 0 {
		return nil
	}
	fd := v.mountFD
	v.mountFD = -1
	return unix.Close(fd)
}

// Transport is what carries the requests: "/dev/fuse" or "io_uring".
func (v *view) Transport() string { return v.server.conn.Name() }

// Served implements mount.View.
func (v *view) Served() bool { return true }

// Wait implements mount.View.
func (v *view) Wait() error {
	<-v.done
	return v.err
}

// Close implements mount.View.
func (v *view) Close() error {
	v.closeOnce.Do(func() { v.closeErr = v.close() })
	return v.closeErr
}

func (v *view) close() error {
	v.Release() // unmounts what was never attached
	if v.server == nil {
		if v.fs != nil {
			v.fs.close()
		}
		if v.stack != nil {
			v.stack.Close()
		}
		return nil
	}
	if err := v.abortIfAlive(); err != nil {
		return err
	}
	<-v.done
	return v.server.conn.Close()
}

// abortIfAlive aborts the connection if it still is one. Its number is the one of another union by the time that ours
// has ended, so it is used only while threads wait for requests: their waiting ends with the connection.
func (v *view) abortIfAlive() error {
	const (
		tick   = 10 * time.Millisecond
		enough = 3 // ticks in a row after which a thread is not just about to notice the end
	)
	for alive := 0; alive < enough; {
		select {
		case <-v.done:
			return nil
		case <-time.After(tick):
		}
		if v.server.conn.Alive() {
			alive++
		} else {
			alive = 0 // all threads are at work: it ends when they have done
		}
	}
	return abort(v.connection)
}
