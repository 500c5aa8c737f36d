package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/docker/go-units"

	"github.com/unionfsd/unionfsd/internal/cgroup"
	"github.com/unionfsd/unionfsd/internal/state"
)

// The least that a limit may be: as with docker run, where a container could not even start with less.
const (
	minMemory = 6 << 20
	minCPUs   = 0.01
)

// limits reads --memory, --cpus and --pids-limit.
func (f *containerFlags) limits() (l cgroup.Limits, err error) {
	if f.memory != "" {
		l.Memory, err = units.RAMInBytes(f.memory)
		if err != nil || l.Memory < minMemory {
			return l, fmt.Errorf("--memory %q; write it as 512m or 2g, at least 6m", f.memory)
		}
	}
	if l.CPUs = f.cpus; l.CPUs != 0 && !(l.CPUs >= minCPUs && l.CPUs <= float64(runtime.NumCPU())) {
		return l, fmt.Errorf("--cpus %v; it is from %v to the %d that there are", f.cpus, minCPUs, runtime.NumCPU())
	}
	if l.PIDs = max(f.pids, 0); f.pids < -1 {
		return l, fmt.Errorf("--pids-limit %d; it is a number of processes, or -1", f.pids)
	}
	return l, nil
}

// limit makes the control group of the container, if it has limits. It is on record before it is there.
func (s *supervisor) limit() error {
	if !s.Cgroup.Any() {
		return nil
	}
	h, err := cgroup.Open()
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	// The name is one that no container of another state root has.
	path, err := h.Path("unionfsd-"+s.home.Name()+"-"+strings.ToLower(rand.Text()[:6]), s.Cgroup)
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	if err := s.update(func(c *state.Container) { c.Cgroup = state.Text(path) }); err != nil {
		return err
	}
	s.group, err = h.Make(path, s.Cgroup)
	return err
}

// openGroup opens the control group for the container to be started in; nil if it has none.
func (s *supervisor) openGroup() (*os.File, error) {
	if s.group == nil {
		return nil, nil
	}
	return s.group.Open()
}

// outOfMemory returns how many processes the kernel has killed for lack of memory, and says so.
func (s *supervisor) outOfMemory() (int, error) {
	if s.group == nil {
		return 0, nil
	}
	n, err := s.group.OOMKills()
	if n > 0 {
		s.app.note("%s: its programs used up the memory that they may have, %s, and the kernel killed %d of them; --memory gives them more",
			s.home.Name(), units.BytesSize(float64(s.Cgroup.Memory)), n)
	}
	return n, err
}

// unlimit removes the control group, when nothing is in it any more.
func (s *supervisor) unlimit() error {
	if s.group == nil {
		return nil
	}
	return s.group.Remove()
}
