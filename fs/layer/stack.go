package layer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stack is a Spec opened on this host. It does not change once it is open.
type Stack struct {
	Spec   Spec
	Upper  *Layer   // nil in a read-only union
	Lowers []*Layer // the topmost first
	Data   []*Layer // data-only; the first is looked at first
	Work   *Work    // nil without Upper, and after OpenReadOnly
	Xattr  XattrNames

	Privileged bool // this process is root of the host: no local file system refuses it a file
}

// Open opens the layers of spec and takes the lock on its upper layer, so that no other union can write there until
// Close. It makes the checks that hold for every backend; its errors are one line with the cause and the fix.
func Open(spec Spec) (*Stack, error) { return OpenNext(spec, nil) }

// OpenNext is Open for a union that takes the place of prev, which has the same layers and is mounted still.
func OpenNext(spec Spec, prev *Previous) (*Stack, error) {
	s, err := OpenReadOnly(spec)
	if err != nil {
		return nil, err
	}
	if prev != nil {
		if err := prev.check(s); err != nil {
			s.Close()
			return nil, err
		}
	}
	if s.Upper != nil {
		if s.Work, err = openWork(spec.Work, s.Upper, spec.Options, prev); err != nil {
			s.Close()
			return nil, err
		}
		if prev == nil { // whose layers have been looked at, and the union may cover their paths
			if err := s.checkOverlap(); err != nil {
				s.Close()
				return nil, err
			}
		}
		if s.Xattr, err = s.upperXattrs(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// OpenReadOnly opens the layers of spec to look at them: it takes no lock and leaves the work directory alone, so it
// is allowed while the union is mounted.
func OpenReadOnly(spec Spec) (*Stack, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	initial := inInitialUserNS()
	s := &Stack{Spec: spec, Privileged: initial && os.Geteuid() == 0, Xattr: NewXattrNames(spec.Options.UserXattr || !initial)}
	b := newBudget()
	for i, path := range spec.Lower {
		l, err := openLower(path, b)
		if err != nil {
			s.Close()
			return nil, err
		}
		l.Pos = i
		s.Lowers = append(s.Lowers, l)
	}
	for i, path := range spec.Data {
		l, err := openLower(path, b)
		if err != nil {
			s.Close()
			return nil, err
		}
		l.Pos = len(spec.Lower) + i
		s.Data = append(s.Data, l)
	}
	if spec.Upper != "" {
		var err error
		if s.Upper, err = openUpper("upper layer", spec.Upper, b); err != nil {
			s.Close()
			return nil, err
		}
	}
	if s.Upper != nil {
		s.Upper.Pos = -1
	}
	s.numberFileSystems()
	return s, nil
}

// IndexDir opens the directory index of workdir to look into it, also in a stack that is open to be looked at only. ENOENT if
// there is none. The caller closes it.
func (s *Stack) IndexDir() (*Dir, error) {
	work, err := openUpper("work directory", s.Spec.Work, s.Upper.budget)
	if err != nil {
		return nil, err
	}
	defer work.Root.Close()
	dir, err := work.Root.OpenDir("index")
	if err != nil {
		return nil, err
	}
	if err := dir.Pin(); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// checkOverlap refuses a lower layer that the union would change: one that is in the upper layer or the work directory
// (ovl_check_overlapping_layers). The other way round is allowed: what is written to the upper layer can be seen there.
func (s *Stack) checkOverlap() error {
	for _, l := range slices.Concat(s.Lowers, s.Data) {
		for _, outer := range []struct {
			what string
			dir  *Dir
		}{{"upper layer", s.Upper.Root}, {"work directory", s.Work.base}} {
			fd, err := openRoot("lower layer", l.Path) // since nothing is above the clone that the layer is read from
			if err != nil {
				return err
			}
			switch inside, err := isBelow(fd, outer.dir); {
			case err != nil:
				return fmt.Errorf("compare lower layer %q and %s %q: %w", l.Path, outer.what, outer.dir.layer.Path, err)
			case inside:
				return fmt.Errorf("lower layer %q is inside %s %q, which changes: name directories that do not contain one another", l.Path, outer.what, outer.dir.layer.Path)
			}
		}
	}
	return nil
}

// Close releases every handle and the lock.
func (s *Stack) Close() error {
	var errs []error
	if s.Work != nil {
		errs = append(errs, s.Work.close())
	}
	if s.Upper != nil {
		errs = append(errs, s.Upper.Root.Close())
	}
	for _, l := range slices.Concat(s.Lowers, s.Data) {
		errs = append(errs, l.Root.Close())
	}
	return errors.Join(errs...)
}

// FileSystems is the number of different file systems that the layers are on. Data-only layers do not count: no inode
// number is shown of them.
func (s *Stack) FileSystems() int {
	n := 0
	for _, l := range s.layers() {
		n = max(n, l.FSID+1)
	}
	return n
}

// layers are those whose names are shown, from the top.
func (s *Stack) layers() []*Layer {
	if s.Upper == nil {
		return s.Lowers
	}
	return append([]*Layer{s.Upper}, s.Lowers...)
}

func (s *Stack) numberFileSystems() {
	ids := map[uint64]int{}
	for _, l := range s.layers() {
		id, seen := ids[l.Dev]
		if !seen {
			id = len(ids)
			ids[l.Dev] = id
		}
		l.FSID = id
	}
}

// upperXattrs finds out under which names marks can be written, by writing one, as ovl_make_workdir does.
func (s *Stack) upperXattrs() (XattrNames, error) {
	probe := s.Work.base.Self()
	for _, names := range []XattrNames{s.Xattr, NewXattrNames(true)} {
		err := probe.Setxattr(names.Opaque, []byte("0"), 0)
		switch {
		case err == nil:
			return names, probe.Removexattr(names.Opaque)
		case err == unix.EOPNOTSUPP && s.Spec.Options.FUSE.AUFSMarks:
			return s.Xattr, nil // those of the lower layers; the upper does without
		case err == unix.EOPNOTSUPP:
			return XattrNames{}, fmt.Errorf("upper layer %q is on a file system without extended attributes: choose one on ext4, xfs, btrfs or tmpfs", s.Upper.Path)
		case err != unix.EPERM:
			return XattrNames{}, fmt.Errorf("set an extended attribute in work directory %q: %w", s.Spec.Work, err)
		}
	}
	return XattrNames{}, fmt.Errorf("extended attributes cannot be written in work directory %q: run as its owner or as root", s.Spec.Work)
}

// inInitialUserNS reports whether this process may have privilege over the whole system. Only then are trusted.*
// attributes to be had (xattr(7)).
func inInitialUserNS() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true // no user namespaces in this kernel
	}
	f := strings.Fields(string(text))
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}
