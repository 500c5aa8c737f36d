package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// status tells programs of a container: its pid in a file, and lines of JSON on a descriptor, in the form of
// bubblewrap's --json-status-fd. Readers ignore keys that they do not know.
type status struct {
	pidFile string
	lines   *os.File // nil if nobody wants them
}

// childStatus is the line for a program that runs.
type childStatus struct {
	ChildPID int    `json:"child-pid"` // of init
	Mount    uint64 `json:"mnt-namespace,omitempty"`
	PID      uint64 `json:"pid-namespace,omitempty"`
	UTS      uint64 `json:"uts-namespace,omitempty"`
	IPC      uint64 `json:"ipc-namespace,omitempty"`
	Cgroup   uint64 `json:"cgroup-namespace,omitempty"`
	Net      uint64 `json:"net-namespace,omitempty"`
	User     uint64 `json:"user-namespace,omitempty"`
}

func newStatus(l launch) (*status, error) {
	s := &status{pidFile: l.PIDFile}
	if l.StatusFD != 0 {
		if _, err := unix.FcntlInt(uintptr(l.StatusFD), unix.F_GETFD, 0); err != nil || l.StatusFD < 3 {
			return nil, fmt.Errorf("--json-status-fd %d: no open descriptor above 2; pass one, as in: %d>status.json", l.StatusFD, max(l.StatusFD, 3))
		}
		s.lines = os.NewFile(uintptr(l.StatusFD), "status")
	}
	return s, nil
}

// started tells that the program runs.
func (s *status) started(pid int) error {
	if s.pidFile != "" {
		if err := os.WriteFile(s.pidFile, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
			return fmt.Errorf("--pidfile: %w", err)
		}
	}
	c := childStatus{ChildPID: pid}
	for name, into := range map[string]*uint64{"mnt": &c.Mount, "pid": &c.PID, "uts": &c.UTS, "ipc": &c.IPC,
		"cgroup": &c.Cgroup, "net": &c.Net, "user": &c.User} {
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &st) == nil { // else it has ended by now
			*into = st.Ino
		}
	}
	return s.line(c)
}

// ended tells the exit code.
func (s *status) ended(code int) {
	_ = s.line(map[string]int{"exit-code": code})
	if s.pidFile != "" {
		os.Remove(s.pidFile)
	}
}

func (s *status) line(v any) error {
	if s.lines == nil {
		return nil
	}
	if err := json.NewEncoder(s.lines).Encode(v); err != nil {
		return fmt.Errorf("--json-status-fd: %w", err)
	}
	return nil
}

func (s *status) close() {
	if s.lines != nil {
		s.lines.Close()
	}
}
