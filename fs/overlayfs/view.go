package overlayfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// view is a union that the kernel serves.
type view struct {
	mu       sync.Mutex
	fd       int              // the detached mount; -1 once it is attached or closed
	attached *mountinfo.Entry // nil before Attach
	beneath  uint64           // id of the mount after AttachBeneath
	stack    *layer.Stack     // holds the lock on the upper layer; nil once closed
}

// FD is the detached mount until Attach, and -1 afterwards: a descriptor would keep the mount busy.
func (v *view) FD() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fd
}

func (v *view) Attach(target string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fd < 0 {
		return fmt.Errorf("mount on %q: the union is attached or closed already", target)
	}
	if err := unix.MoveMount(v.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return attachError(target, err)
	}
	id, err := sys.MountID(v.fd)
	if err == nil {
		v.attached, err = findMount(id)
	}
	v.closeMount()
	if err == nil && v.attached == nil {
		err = fmt.Errorf("the mount %d is not in mountinfo", id)
	}
	if err != nil {
		err = fmt.Errorf("mount on %q: %w", target, err)
		return errors.Join(err, unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}

// Release implements mount.View.
func (v *view) Release() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closeMount()
}

// closeMount closes the descriptor of the mount, if it still is open.
func (v *view) closeMount() error {
	if v.fd < 0 {
		return nil
	}
	fd := v.fd
	v.fd = -1
	return unix.Close(fd)
}

// AttachBeneath implements mount.Next.
func (v *view) AttachBeneath(old int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, err := sys.MountID(v.fd)
	if err != nil {
		return fmt.Errorf("ask for the id of the new mount: %w", err)
	}
	if err := sys.MoveBeneath(v.fd, old); err != nil {
		return err
	}
	v.beneath = id
	v.closeMount()
	return nil
}

// Stack implements mount.Next.
func (v *view) Stack() *layer.Stack {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stack
}

// Begin implements mount.Next. The kernel has begun.
func (v *view) Begin(<-chan struct{}) error { return nil }

func attachError(target string, err error) error {
	var st unix.Stat_t
	if unix.Stat(target, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR { // EINVAL is all that the kernel says
		return fmt.Errorf("mount point %q is not a directory: name a directory", target)
	}
	switch err {
	case unix.ENOENT:
		return fmt.Errorf("mount point %q does not exist: create the directory", target)
	case unix.EPERM:
		return fmt.Errorf("no privilege to mount on %q: run as root, or in a user and mount namespace of your own (unshare -Urm)", target)
	case unix.EINVAL:
		return fmt.Errorf("mount on %q: %w: the union may be attached already, or the directory be on no mount of this namespace", target, err)
	default:
		return fmt.Errorf("mount on %q: %w", target, err)
	}
}

// findMount returns nil if there is no such mount in this mount namespace.
func findMount(id uint64) (*mountinfo.Entry, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	want := strconv.FormatUint(id, 10)
	for i := range entries {
		if entries[i].ID == want {
			return &entries[i], nil
		}
	}
	return nil, nil
}

// Served is false: the kernel does it.
func (v *view) Served() bool { return false }

// Wait returns when the mount that Attach made is gone from the mount namespace of this process. The kernel wakes up
// who polls mountinfo after every mount and unmount (proc_pid_mounts(5)).
func (v *view) Wait() error {
	attached, err := v.whereAttached()
	if err != nil || attached == nil {
		return err
	}
	fd, err := sys.Openat(unix.AT_FDCWD, "/proc/self/mountinfo", unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("wait for the unmount: %w", err)
	}
	defer unix.Close(fd)
	for {
		there, err := isMounted(attached)
		if err != nil || !there {
			return err
		}
		changes := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(changes, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the unmount: %w", err)
		}
	}
}

// whereAttached is the mount that Attach or AttachBeneath made; nil if there is none, or not any more.
func (v *view) whereAttached() (*mountinfo.Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.attached == nil && v.beneath != 0 {
		entry, err := findMount(v.beneath)
		if err != nil {
			return nil, err
		}
		v.attached, v.beneath = entry, 0
	}
	return v.attached, nil
}

func isMounted(m *mountinfo.Entry) (bool, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		// The kernel gives ids of mounts and devices to the next one at once, so these alone do not tell.
		if e.ID == m.ID && e.Dev == m.Dev && layersOf(e) == layersOf(*m) {
			return true, nil
		}
	}
	return false, nil
}

// layersOf returns the options of an overlay without the first, ro or rw, which a remount may change.
func layersOf(e mountinfo.Entry) string {
	_, rest, _ := strings.Cut(e.Options, ",")
	return rest
}

// Close releases the lock on the upper layer, and the union if it was not attached. It may be called twice.
func (v *view) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	errs := []error{v.closeMount()}
	if v.stack != nil {
		errs = append(errs, v.stack.Close())
		v.stack = nil
	}
	return errors.Join(errs...)
}
