package union

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// caller is the thread that waits for a request.
type caller struct {
	pid         uint32          // 0 if it is in a pid namespace that the daemon cannot see
	interrupted <-chan struct{} // closed when it got a signal, of whatever kind
}

func by(header *fuse.InHeader, interrupted <-chan struct{}) caller {
	return caller{pid: header.Pid, interrupted: interrupted}
}

// killed reports whether the caller is about to die. Other signals do not end a system call on a disk file, so they must
// not end a copy-up: the Go runtime, for one, sends them all the time. The kernel's copy-up is killable in the same way.
func (c caller) killed() bool {
	select {
	case <-c.interrupted:
		return c.pid != 0 && dying(c.pid)
	default:
		return false
	}
}

// dying reports whether a thread is gone or has a SIGKILL pending, which is what the kernel makes of any fatal signal.
func dying(pid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		line := lines.Bytes()
		for _, field := range []string{"SigPnd:", "ShdPnd:"} {
			if mask, found := bytes.CutPrefix(line, []byte(field)); found {
				set, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
				if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
					return true
				}
			}
		}
	}
	return false
}

// capable reports whether the thread that waits for the request has a capability, in the user namespace of the daemon. A
// request does not tell. Who cannot be looked at is taken by its user id.
func capable(caller *fuse.InHeader, capability uint) bool {
	proc := fmt.Sprintf("/proc/%d/", caller.Pid)
	theirs, err := os.Readlink(proc + "ns/user")
	if err != nil {
		return caller.Uid == 0
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err == nil && ours != theirs {
		return false
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return caller.Uid == 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if mask, found := bytes.CutPrefix(lines.Bytes(), []byte("CapEff:")); found {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
			return err == nil && set&(1<<capability) != 0
		}
	}
	return false
}

// inGroup reports whether the thread that waits for the request is in a group (vfsgid_in_group_p). The request tells its
// group; the others are in its status. Who cannot be looked at is in no other group.
func inGroup(caller *fuse.InHeader, gid uint32) bool {
	if caller.Gid == gid {
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", caller.Pid))
	if err != nil {
		return false
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if groups, found := bytes.CutPrefix(lines.Bytes(), []byte("Groups:")); found {
			return slices.Contains(strings.Fields(string(groups)), strconv.FormatUint(uint64(gid), 10))
		}
	}
	return false
}
