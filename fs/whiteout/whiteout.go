package whiteout

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Is reports whether st describes a whiteout: a character device 0:0.
func Is(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// IsMarked reports whether the object, which st describes and which is in a directory that is [Marked], is a whiteout
// in the form of a marked empty file.
func IsMarked(r layer.Ref, st *unix.Stat_t, x layer.XattrNames) (bool, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	_, err := r.GetxattrInto(x.Whiteout, nil)
	switch err {
	case nil:
		return true, nil
	case unix.ENODATA, unix.EOPNOTSUPP:
		return false, nil
	default:
		return false, err
	}
}

// Maker makes the whiteouts of one mounted union.
type Maker struct {
	// Observe, if not nil, is told of every whiteout.
	Observe func()

	// AUFS lets whiteouts be AUFS's marks where the file system has no device nodes.
	AUFS bool

	work *layer.Work

	mu     sync.Mutex
	shared string // name in the staging directory of the inode that the whiteouts share; empty if none is ready
}

// NewMaker returns a Maker that stages in work.
func NewMaker(work *layer.Work) *Maker { return &Maker{work: work} }

// Covered says what a whiteout takes the place of.
type Covered int

const (
	Nothing   Covered = iota // the upper layer has nothing of the name: the whiteout hides a lower object
	File                     // something that is not a directory
	Directory                // a directory, which goes with all that is in it
)

// Cover puts a whiteout at name in the upper directory dir, in one step: no moment shows what the lower layers have
// of the name. Like ovl_cleanup_and_whiteout.
func (m *Maker) Cover(dir *layer.Dir, name string, what Covered) error {
	s, err := m.stage()
	if m.AUFS && impossible(err) {
		return m.mark(dir, name, what)
	}
	if err != nil {
		return err
	}
	defer s.Discard()
	how := layer.Add
	switch what {
	case File:
		how = layer.Replace
	case Directory:
		how = layer.Exchange
	}
	if err := s.Publish(dir, name, how); err != nil {
		return err
	}
	if m.Observe != nil {
		m.Observe()
	}
	return nil
}

// mark puts AUFS's mark for name in dir. It hides what is below; then the name goes, which showed until now.
func (m *Maker) mark(dir *layer.Dir, name string, what Covered) error {
	if err := dir.MakeAUFSName(layer.AUFSPrefix + name); err != nil {
		return err
	}
	switch what {
	case File:
		if err := dir.Unlink(name); err != nil {
			return err
		}
	case Directory:
		temp := m.work.TempName()
		if err := dir.Rename(name, m.work.Dir(), temp, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
		m.work.StageNamed(temp).Discard()
	}
	if m.Observe != nil {
		m.Observe()
	}
	return nil
}

// Leave renames from in dir to the entry name of another directory, over what is there, and puts a whiteout in its
// place: in one step where the file system can.
func (m *Maker) Leave(dir *layer.Dir, from string, to *layer.Dir, name string) error {
	err := dir.Rename(from, to, name, unix.RENAME_WHITEOUT)
	if !m.AUFS || !impossible(err) {
		if err == nil && m.Observe != nil {
			m.Observe()
		}
		return err
	}
	// To hide before is not possible with a device, and after it, where it is not possible with a mark: of a crash in
	// between the worst is that the old name shows what it hid.
	s, err := m.stage()
	if impossible(err) {
		if err := m.mark(dir, from, Nothing); err != nil {
			return err
		}
		return dir.Rename(from, to, name, 0)
	}
	if err != nil {
		return err
	}
	defer s.Discard()
	if err := dir.Rename(from, to, name, 0); err != nil {
		return err
	}
	if err := s.Publish(dir, from, layer.Add); err != nil {
		return err
	}
	if m.Observe != nil {
		m.Observe()
	}
	return nil
}

// stage returns a whiteout with a name of its own in the staging directory.
func (m *Maker) stage() (*layer.Staged, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	staging := m.work.Dir()
	if m.shared == "" {
		name := m.work.TempName()
		if err := staging.Mknod(name, unix.S_IFCHR, 0); err != nil {
			return nil, err
		}
		m.shared = name
	}
	name := m.work.TempName()
	err := staging.At(m.shared).LinkTo(staging, name)
	if err == unix.EMLINK { // it has all the links it can have: this one takes the shared name itself
		name, m.shared, err = m.shared, "", nil
	}
	if err != nil {
		return nil, err
	}
	return m.work.StageNamed(name), nil
}
