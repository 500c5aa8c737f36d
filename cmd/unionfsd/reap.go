package main

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/unionfsd/unionfsd/internal/cgroup"
	"github.com/unionfsd/unionfsd/internal/state"
)

// reap removes what supervisors have left that were killed, and the containers that were to be removed when they end.
// What it cannot remove, the next one tries again.
func reap(root state.Root) {
	list, err := root.Containers()
	if err != nil {
		return
	}
	for _, c := range list {
		if c.Running {
			continue
		}
		_ = removeLeft(c)
		if c.Remove {
			_ = root.RemoveContainer(c.Name)
		}
	}
}

// removeLeft removes what a container that does not run any more may have left besides its directory: a control group, and a
// file with the pid of its init.
func removeLeft(c state.Container) error {
	var err error
	if c.Cgroup != "" {
		err = cgroup.At(string(c.Cgroup)).Remove()
	}
	if c.PIDFile == "" || c.PID == 0 {
		return err
	}
	text, rerr := os.ReadFile(string(c.PIDFile))
	if rerr == nil && strings.TrimSpace(string(text)) == strconv.Itoa(c.PID) { // else it is another one's by now
		rerr = os.Remove(string(c.PIDFile))
	}
	if errors.Is(rerr, fs.ErrNotExist) {
		rerr = nil
	}
	return errors.Join(err, rerr)
}
