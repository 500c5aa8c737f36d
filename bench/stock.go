package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/bench/workload"
)

// stock holds the lower layers that were built, for all that use the same ones.
type stock struct {
	dir   string
	with  workload.Builder // what is the same for all recipes
	built map[string]*layers
	count int
}

// layers are what one recipe has built.
type layers struct {
	dir     string
	lower   []string // the topmost first
	scratch string
	flat    string // what the layers show together, as one directory; empty until it is made
}

func (s *stock) get(recipe workload.Recipe) (*layers, error) {
	if l := s.built[recipe.Name]; l != nil {
		return l, nil
	}
	// Short names: the paths of 2,000 layers have to fit in what peers take.
	s.count++
	l := &layers{dir: filepath.Join(s.dir, fmt.Sprint(s.count))}
	l.scratch = filepath.Join(l.dir, "scratch")
	if err := os.MkdirAll(l.scratch, 0o755); err != nil {
		return nil, err
	}
	b := s.with
	b.Dir, b.Scratch = l.dir, l.scratch
	if err := recipe.Build(&b); err != nil {
		return nil, err
	}
	l.lower = b.Layers
	s.built[recipe.Name] = l
	return l, protect(l.dir)
}

// spreadOut tells ext4 that what is made in dir belongs to different things, as chattr +T does, so that each sample
// gets block groups of its own. In one group with the sample before, each new file would be looked for among the
// inodes of those just deleted, which ext4 does not use again for some minutes (recently_deleted in fs/ext4/ialloc.c):
// that took ten times as long as what is to be measured.
func spreadOut(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const topdir = 0x20000 // FS_TOPDIR_FL of <linux/fs.h>
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topdir)
	}
	if err == unix.ENOTTY || err == unix.EOPNOTSUPP || err == unix.EINVAL { // another file system, without such groups
		return nil
	}
	return err
}

// protect makes dir read-only for everything in this mount namespace: a server that writes to a lower layer, as some
// do, is not to change what the others read.
func protect(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind mount: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make the lower layers read-only: %w", err)
	}
	return nil
}

func (s *stock) drop(recipe workload.Recipe) error {
	l := s.built[recipe.Name]
	delete(s.built, recipe.Name)
	if err := unix.Unmount(l.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the lower layers: %w", err)
	}
	return errors.Join(os.RemoveAll(l.dir), os.RemoveAll(l.flatDir()))
}

// bare returns the directory that has without a union what the layers show with one. The caller may change it if
// own; it lies in dir then.
func (l *layers) bare(dir string, own bool) (string, error) {
	if l.flat == "" {
		l.flat = l.lower[0]
		if len(l.lower) > 1 {
			flat := l.flatDir()
			for i := len(l.lower) - 1; i >= 0; i-- {
				if err := copyTree(l.lower[i], flat); err != nil {
					return "", err
				}
			}
			l.flat = flat
		}
	}
	if !own {
		return l.flat, nil
	}
	dir = filepath.Join(dir, "bare")
	return dir, copyTree(l.flat, dir)
}

// flatDir is where layers are put together.
func (l *layers) flatDir() string { return l.dir + "-flat" }

// copyTree copies what is in the directory from into the directory to.
func copyTree(from, to string) error {
	out, err := exec.Command("cp", "-aT", "--reflink=auto", "--sparse=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lacks returns why the workload cannot be run on this host.
func lacks(w workload.Workload, tree string) error {
	if w.Layers.FromTree && tree == "" {
		return errors.New("no source tree: install Go, or pass --tree DIR")
	}
	for _, program := range w.Needs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not in PATH: install it", program)
		}
	}
	return nil
}
