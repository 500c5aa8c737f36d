package state

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Server opens the process that serves m as a pidfd, or reports false if there is none (any more). The start time
// in the record tells it from a later process that was given the same number.
func (m Mount) Server() (*os.File, bool) { return openProcess(m.PID, m.Start) }

// OpenSupervisor opens the process that runs c, as [Mount.Server] does.
func (c Container) OpenSupervisor() (*os.File, bool) { return openProcess(c.Supervisor, c.Start) }

func openProcess(pid int, start uint64) (*os.File, bool) {
	if pid == 0 {
		return nil, false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Asked after the pidfd was opened: it holds the number until here.
	if began, err := startTime(pid); err != nil || began != start {
		f.Close()
		return nil, false
	}
	return f, true
}

// startTime is when the process pid started, in clock ticks since the boot: field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Field 2 is the name in parentheses, which may hold anything; after its end comes field 3.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has too few fields", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
