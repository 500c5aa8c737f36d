package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opcodes are the FUSE requests that are counted one by one (enum fuse_opcode of <linux/fuse.h>). FORGETs are no
// requests: nobody waits for them.
var opcodes = map[int]string{
	1: "LOOKUP", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK",
	11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 18: "RELEASE", 20: "FSYNC",
	21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 25: "FLUSH", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR",
	34: "ACCESS", 35: "CREATE", 44: "READDIRPLUS", 45: "RENAME2", 52: "STATX",
}

// counts is how often something happened.
type counts struct {
	requests uint64            // to the FUSE servers
	byCode   map[string]uint64 // those of opcodes
	syscalls uint64            // of the servers
}

// tracing is a view of the kernel's tracepoints, which perf_event_open(2) counts.
type tracing struct {
	dir     string
	request uint64 // the number of the tracepoint fuse:fuse_request_send
	syscall uint64 // of raw_syscalls:sys_enter
}

// newTracing mounts tracefs on dir, which it makes. Linux 6.11 or later has the tracepoints of FUSE.
func newTracing(dir string) (_ *tracing, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount tracefs: %w", err)
	}
	t := &tracing{dir: dir}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.request, err = t.id("fuse/fuse_request_send"); err != nil {
		return nil, err
	}
	if t.syscall, err = t.id("raw_syscalls/sys_enter"); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *tracing) id(name string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(t.dir, "events", name, "id"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("this kernel has no tracepoint %s", name)
	} else if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

func (t *tracing) close() {
	if t != nil {
		_ = unix.Unmount(t.dir, unix.MNT_DETACH)
	}
}

// counter counts until it is closed.
type counter struct {
	total    []int // descriptors
	byCode   map[int][]int
	syscalls []int
}

// count starts to count the requests to the FUSE file systems with the given MAJOR:MINOR, and the system calls of
// their servers.
func (t *tracing) count(devices []string, servers []*process) (_ *counter, err error) {
	c := &counter{byCode: map[int][]int{}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if len(servers) == 0 {
		return c, nil
	}
	var ours []string
	for _, device := range devices {
		// The number of a connection is the st_dev of its file system. Its major number is 0.
		_, minor, _ := strings.Cut(device, ":")
		ours = append(ours, "connection == "+minor)
	}
	filter := "(" + strings.Join(ours, " || ") + ")"
	if c.total, err = onEveryCPU(t.request, filter); err != nil {
		return nil, err
	}
	for code := range opcodes {
		fds, err := onEveryCPU(t.request, fmt.Sprintf("%s && opcode == %d", filter, code))
		if err != nil {
			return nil, err
		}
		c.byCode[code] = fds
	}
	for _, p := range servers {
		// An event is about a thread, and about those that it will start.
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid))
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return nil, err
			}
			fd, err := openEvent(t.syscall, tid, -1)
			if err == unix.ESRCH { // it has ended meanwhile
				continue
			} else if err != nil {
				return nil, err
			}
			c.syscalls = append(c.syscalls, fd)
		}
	}
	return c, nil
}

func onEveryCPU(event uint64, filter string) (fds []int, err error) {
	text, err := unix.BytePtrFromString(filter)
	if err != nil {
		return nil, err
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	for _, cpu := range cpus {
		fd, err := openEvent(event, -1, cpu)
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(text)))
		if errno == 0 {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_ENABLE, 0)
		}
		if errno != 0 {
			closeAll(fds)
			return nil, fmt.Errorf("filter %q: %w", filter, errno)
		}
	}
	return fds, nil
}

// onlineCPUs reads a list such as "0-3,6".
func onlineCPUs() (cpus []int, err error) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return nil, err
		}
		to, err := strconv.Atoi(last)
		if err != nil {
			return nil, err
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

func openEvent(event uint64, pid, cpu int) (int, error) {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: event}
	attr.Size = uint32(unsafe.Sizeof(*attr))
	if pid >= 0 {
		attr.Bits = unix.PerfBitInherit
	} else {
		attr.Bits = unix.PerfBitDisabled // else it counts everything until its filter is there
	}
	fd, err := unix.PerfEventOpen(attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil && err != unix.ESRCH {
		return -1, fmt.Errorf("perf_event_open: %w", err)
	}
	return fd, err
}

func (c *counter) read() (counts, error) {
	n := counts{byCode: map[string]uint64{}}
	var err error
	if n.requests, err = sum(c.total); err != nil {
		return n, err
	}
	for code, fds := range c.byCode {
		count, err := sum(fds)
		if err != nil {
			return n, err
		}
		if count > 0 {
			n.byCode[opcodes[code]] = count
		}
	}
	n.syscalls, err = sum(c.syscalls)
	return n, err
}

func sum(fds []int) (total uint64, err error) {
	var b [8]byte
	for _, fd := range fds {
		if _, err := unix.Read(fd, b[:]); err != nil {
			return 0, fmt.Errorf("read a perf event: %w", err)
		}
		total += binary.NativeEndian.Uint64(b[:])
	}
	return total, nil
}

func (c *counter) close() {
	closeAll(c.total)
	closeAll(c.syscalls)
	for _, fds := range c.byCode {
		closeAll(fds)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
