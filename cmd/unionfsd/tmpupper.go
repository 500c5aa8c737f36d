package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/docker/go-units"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// With --tmp-upper the upper layers of a container are on a tmpfs that is mounted nowhere: its supervisor alone holds it, by
// a descriptor, so that it is gone with it, however that ends. Root finds it in /proc while the container runs.

// memoryUpper reads --tmp-upper, as a size for a tmpfs.
func (f runFlags) memoryUpper() (string, error) {
	switch {
	case f.tmpUpper == "":
		return "", nil
	case f.upper != "":
		return "", errors.New("both --tmp-upper and --upper; drop one")
	case strings.HasSuffix(f.tmpUpper, "%"):
		return f.tmpUpper, nil
	}
	n, err := units.RAMInBytes(f.tmpUpper)
	if err != nil || n <= 0 {
		return "", fmt.Errorf("--tmp-upper=%s; write the size as 512m or 2g", f.tmpUpper)
	}
	return fmt.Sprint(n), nil
}

// inMemory makes the tmpfs for the upper layers, if they are to be on one.
func (s *supervisor) inMemory() error {
	if s.TmpUpper == "" {
		return nil
	}
	fd, err := sys.NewMount("tmpfs", []string{"mode=0700", "size=" + s.TmpUpper}, 0)
	if err != nil {
		return fmt.Errorf("tmpfs for the upper layer: %w", err)
	}
	s.memory = os.NewFile(uintptr(fd), "upper layers")
	return s.home.PutUppers(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
}

// lost is an error if the upper layer of the container is in memory, and is gone, or not for this process to look into.
func lost(c state.Container) error {
	if !c.TmpUpper {
		return nil
	}
	if !c.Running {
		return errors.New("its upper layer was in memory (run --tmp-upper), and went when it ended")
	}
	spec, _, err := layer.ParseOptions(string(c.Spec))
	if err != nil {
		return err
	}
	if _, err := os.Stat(spec.Upper); errors.Is(err, fs.ErrPermission) { // it is that of another user namespace's
		return errors.New("its upper layer is in memory (run --tmp-upper), which only root can look into from outside; see unionfsd exec")
	}
	return nil
}
