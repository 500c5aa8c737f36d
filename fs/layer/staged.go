package layer

import (
	"golang.org/x/sys/unix"
)

// Staged is an object that was built in the staging directory and is not visible in the union yet.
type Staged struct {
	work *Work
	dir  *Dir   // where it is staged; nil once published or discarded
	name string // its temporary name; empty if it has none (O_TMPFILE)
	fd   int    // of an object without a name, else -1
}

// StageNamed returns the handle for what the caller makes in Work.Dir under the name w.TempName gave it.
func (w *Work) StageNamed(name string) *Staged {
	return &Staged{work: w, dir: w.dir, name: name, fd: -1}
}

// StageUnnamed takes over fd, a file without a name (O_TMPFILE) on the file system of the upper.
func (w *Work) StageUnnamed(fd int) *Staged {
	return &Staged{work: w, dir: w.dir, fd: fd}
}

// StageFile makes an empty regular file, without a name if the file system can, and returns a descriptor open for
// writing, which stays the Staged's.
func (w *Work) StageFile(mode uint32) (*Staged, int, error) {
	fd, err := w.dir.CreateUnnamed(unix.O_WRONLY, mode)
	if err == nil {
		return w.StageUnnamed(fd), fd, nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.ENOENT {
		return nil, -1, err
	}
	name := w.TempName()
	if fd, err = w.dir.Create(name, unix.O_WRONLY, mode); err != nil {
		return nil, -1, err
	}
	s := w.StageNamed(name)
	s.fd = fd
	return s, fd, nil
}

// Ref is the staged object.
func (s *Staged) Ref() Ref {
	if s.name != "" {
		return s.dir.At(s.name)
	}
	return RefFD(s.fd)
}

// How says what a publication does with what is at the name.
type How int

const (
	// Add fails with EEXIST if the name is taken.
	Add How = iota
	// Replace puts the object in the place of what is there, which is gone then. A directory replaces only an
	// empty directory.
	Replace
	// Exchange swaps the object with what is there, which is Discarded from the staging directory afterwards.
	// It is the way to replace what a rename cannot: a directory by a file, a directory that is not empty.
	Exchange
)

// Publish makes the object visible as name in dir by one rename or link. On failure it is still staged.
func (s *Staged) Publish(dir *Dir, name string, how How) error {
	if s.name == "" {
		if how == Add {
			if err := RefFD(s.fd).LinkTo(dir, name); err != nil {
				return err
			}
			s.done()
			return nil
		}
		temp := s.work.TempName() // a link never replaces, so give it a name first
		if err := RefFD(s.fd).LinkTo(s.dir, temp); err != nil {
			return err
		}
		s.name = temp
	}
	switch how {
	case Add:
		if err := s.rename(dir, name, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
	case Replace:
		if err := s.rename(dir, name, 0); err != nil {
			return err
		}
	case Exchange:
		if err := s.rename(dir, name, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		// The exchange is done and cannot fail any more; what is left is rubbish, which the next mount
		// removes if it cannot be removed now.
		_ = s.dir.RemoveAll(s.name)
	}
	s.done()
	return nil
}

func (s *Staged) rename(dir *Dir, name string, flags uint) error {
	return s.dir.Rename(s.name, dir, name, flags)
}

// done lets go of the object. Closing it cannot fail on any file system that can be an upper, and could not be helped:
// the object has its name or has lost it.
func (s *Staged) done() {
	s.dir = nil
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// Discard removes the object if it was not published.
func (s *Staged) Discard() {
	if s.dir == nil {
		return
	}
	if s.name != "" {
		_ = s.dir.RemoveAll(s.name) // best effort: the next mount empties the staging directory
	}
	s.done()
}
