package difftest

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// slots is how many files a side keeps open.
const slots = 4

// The ids of the user without privileges; not the same number, so that they cannot be taken for each other.
const userID, groupID = 1000, 1001

// side is one of the two unions, and the files that are open on it.
type side struct {
	testing.TB
	server  *mounttest.Server
	spec    layer.Spec
	dir     string // where it is mounted
	mounted *mounttest.Mount
	open    [slots]int // descriptors; -1 is none
	start   time.Time  // times from here on are not compared
}

// newSide makes the layers of c and mounts them.
func newSide(t testing.TB, s *mounttest.Server, c Case, start time.Time) (*side, error) {
	t.Helper()
	dirs := testfs.Layers(t, len(c.Lower)+3)
	x := &side{TB: t, server: s, dir: dirs[0], start: start}
	options, unknown, err := layer.ParseOptions(c.Options)
	if err == nil && len(unknown) > 0 {
		err = fmt.Errorf("unknown: %q", unknown)
	}
	if err != nil {
		return nil, fmt.Errorf("options %q: %w", c.Options, err)
	}
	x.spec = layer.Spec{Upper: dirs[1], Work: dirs[2], Lower: dirs[3:], Options: options.Options}
	for i, text := range c.Lower {
		tree, err := testfs.Parse(text)
		if err == nil {
			err = tree.Write(x.spec.Lower[i])
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	for i := range x.open {
		x.open[i] = -1
	}
	x.mount()
	return x, nil
}

func (s *side) mount() {
	s.Helper()
	s.mounted = s.server.Mount(s, s.spec, s.dir)
}

// unmount closes what is open and unmounts.
func (s *side) unmount() {
	s.Helper()
	for i := range s.open {
		s.closeSlot(i)
	}
	s.mounted.Unmount()
}

func (s *side) closeSlot(i int) error {
	fd := s.open[i]
	s.open[i] = -1
	return unix.Close(fd) // EBADF for none
}

// merged is the tree that the union shows, upper what is in its upper layer.
func (s *side) merged() string { return testfs.Fingerprint(s.dir, testfs.Options{Since: s.start}) }
func (s *side) upper() string {
	return testfs.Fingerprint(s.spec.Upper, testfs.Options{Layer: true, Since: s.start})
}

// path is where name is in the union.
func (s *side) path(name string) string { return s.dir + "/" + name }

// do does one operation and returns what is to be compared of it.
func (s *side) do(o Op) string {
	k := kindNamed(o.Kind)
	if !o.User {
		return k.do(s, o.Args)
	}
	// Ids belong to the thread, as long as the system calls are made directly. As a user without privileges it
	// has no capabilities, and gets them back with the saved id.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setEffective(unix.SYS_SETRESGID, groupID)
	setEffective(unix.SYS_SETRESUID, userID)
	defer func() {
		setEffective(unix.SYS_SETRESUID, 0)
		setEffective(unix.SYS_SETRESGID, 0)
	}()
	return k.do(s, o.Args)
}

// setEffective sets the effective user or group id of this thread.
func setEffective(call, id uintptr) {
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(call, same, id, same); errno != 0 {
		panic(errno)
	}
}

// result is how an error is compared.
func result(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// results is the result of an operation that returned something.
func results(v any, err error) string {
	if err != nil {
		return result(err)
	}
	return fmt.Sprintf("ok %v", v)
}

// number reads an argument that is a number, octal if it is a mode.
func number(s string, base int) int {
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil {
		panic(err) // a case that was edited by hand, badly
	}
	return int(n)
}

// slotFD is the descriptor in a slot.
func (s *side) slotFD(arg string) int { return s.open[number(arg, 10)%slots] }

// writableFD is the descriptor in a slot if it is of a file and can be written, else -1. What was opened otherwise
// while it was in a lower layer stays there for the kernel: a mapping shows the lower file for ever, and a change of
// mode after it was unlinked fails, or brings its name back.
func (s *side) writableFD(arg string) int {
	fd := s.slotFD(arg)
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1
	}
	return fd
}

// filled is called when name may have got the data that it was copied up without. The kernel changes its time by that.
func (s *side) filled(name string) {
	if s.spec.Options.Metacopy {
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, s.path(name), nil, 0)
	}
}

// describe is what stat told, without what two unions need not have the same: sizes of directories, and how many
// links they have, which changes on the kernel when one becomes a merged directory.
func (s *side) describe(st *unix.Stat_t) string {
	size, nlink := st.Size, st.Nlink
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size, nlink = 0, 1
	}
	mtime := "new"
	if t := time.Unix(st.Mtim.Unix()); t.Before(s.start) {
		mtime = t.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("mode=%o owner=%d:%d size=%d nlink=%d rdev=%x mtime=%s", st.Mode, st.Uid, st.Gid, size, nlink, st.Rdev, mtime)
}

func (s *side) proc(fd int) string { return filepath.Join("/proc/self/fd", strconv.Itoa(fd)) }
