package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// sharedName is the group in the root of the hierarchy that has those of all containers, while there are any.
const sharedName = "unionfsd"

// Group is a control group.
type Group struct {
	dir string
}

// Hierarchy is the tree of control groups, as this process sees it.
type Hierarchy struct {
	root string // where it is mounted
	own  string // the group of this process, from there
	top  bool   // root is that of the host, and this process may write there

	mkdir func(string) error // os.Mkdir but in tests: a directory has the files of a group at once
}

// Open finds the hierarchy of version 2.
func Open() (Hierarchy, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return Hierarchy{}, err
	}
	i := slices.IndexFunc(entries, func(e mountinfo.Entry) bool { return e.FSType == "cgroup2" })
	if i < 0 {
		return Hierarchy{}, errors.New("cgroup version 2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1")
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Hierarchy{}, err
	}
	h := Hierarchy{root: entries[i].MountPoint, mkdir: func(dir string) error { return os.Mkdir(dir, 0o755) }}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			h.own = strings.TrimSpace(path)
		}
	}
	// Only the root of all groups has no cgroup.type, and may have processes and controllers.
	_, err = os.Stat(filepath.Join(h.root, "cgroup.type"))
	h.top = errors.Is(err, fs.ErrNotExist) && unix.Access(filepath.Join(h.root, "cgroup.subtree_control"), unix.W_OK) == nil
	return h, nil
}

// Path is where [Hierarchy.Make] would make a group of this name. It is for records: it is known before there is one.
func (h Hierarchy) Path(name string, l Limits) (string, error) {
	parent, err := h.parent(l)
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, name), nil
}

// parent returns a group that gives those below it what the limits need.
func (h Hierarchy) parent(l Limits) (string, error) {
	var need []string
	for _, s := range l.settings() {
		if !slices.Contains(need, s.controller) {
			need = append(need, s.controller)
		}
	}
	if err := h.offers(need); err != nil {
		return "", err
	}
	if h.top {
		return h.shared(need)
	}
	var refused error // by the group of this process
	for at := filepath.Clean("/" + h.own); ; at = filepath.Dir(at) {
		dir := filepath.Join(h.root, at)
		err := enable(dir, need)
		if err == nil {
			return dir, nil
		}
		if refused == nil {
			refused = err
		}
		if at == "/" {
			return "", fmt.Errorf("no control group that this process is in may be divided (%w): run as root, or in one of your own: systemd-run --user --scope -p Delegate=yes", refused)
		}
	}
}

// shared makes the group for those of all containers.
func (h Hierarchy) shared(need []string) (string, error) {
	if err := enable(h.root, need); err != nil {
		return "", err
	}
	dir := filepath.Join(h.root, sharedName)
	if err := h.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, enable(dir, need)
}

// offers is an error if the kernel has a controller in no group of this hierarchy.
func (h Hierarchy) offers(need []string) error {
	has, err := words(filepath.Join(h.root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range need {
		if !slices.Contains(has, c) {
			return fmt.Errorf("cgroup version 2 at %s does not offer the controller %q, which version 1 may have: boot with systemd.unified_cgroup_hierarchy=1", h.root, c)
		}
	}
	return nil
}

// enable lets the group dir give controllers to those below it.
func enable(dir string, need []string) error {
	has, err := words(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range need {
		if slices.Contains(has, c) {
			continue
		}
		if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return err
		}
	}
	if unix.Access(dir, unix.W_OK) != nil {
		return &fs.PathError{Op: "mkdir in", Path: dir, Err: unix.EACCES}
	}
	return nil
}

// Make makes the group at a path that [Hierarchy.Path] gave, with its limits.
func (h Hierarchy) Make(path string, l Limits) (*Group, error) {
	err := h.mkdir(path)
	if errors.Is(err, fs.ErrNotExist) { // the last one but this was removed, and the shared group with it
		if _, err = h.parent(l); err == nil {
			err = h.mkdir(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	g := &Group{path}
	for _, s := range l.settings() {
		err := write(path, s.file, s.value)
		if s.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("limit %s to %s: %w", s.file, s.value, err), g.Remove())
		}
	}
	return g, nil
}

// At is the group of which Path has told.
func At(path string) *Group { return &Group{path} }

// Open opens the group, for a process to be started in it.
func (g *Group) Open() (*os.File, error) {
	return os.OpenFile(g.dir, unix.O_DIRECTORY|unix.O_PATH, 0)
}

// OOMKills is how many processes of the group the kernel has killed since the group had no memory left.
func (g *Group) OOMKills() (int, error) {
	f, err := os.Open(filepath.Join(g.dir, "memory.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it has no limit of memory
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if count, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			return strconv.Atoi(count)
		}
	}
	return 0, fmt.Errorf("%s has no line oom_kill", f.Name())
}

// Remove removes the group when the last process in it is gone, for which it waits a moment; no error if there is no such
// group.
func (g *Group) Remove() error {
	var err error
	for range 200 {
		err = unix.Rmdir(g.dir)
		if err == nil || err == unix.ENOENT {
			if parent := filepath.Dir(g.dir); filepath.Base(parent) == sharedName {
				_ = unix.Rmdir(parent) // unless others are in it
			}
			return nil
		}
		if err != unix.EBUSY {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return &fs.PathError{Op: "remove the control group", Path: g.dir, Err: err}
}

// words reads a file with words.
func words(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Fields(string(text)), err
}

// write writes to a file of a group, which must be there.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
