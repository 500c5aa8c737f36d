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

	work  *layer.Work
	xattr layer.XattrNames

	mu     sync.Mutex
	shared string // name in the staging directory of the inode that the whiteouts share; empty if none is ready
	files  bool   // there are no devices: they are marked files
}

// NewMaker returns a Maker that stages in work, for a union with attributes of the names x.
func NewMaker(work *layer.Work, x layer.XattrNames) *Maker { return &Maker{work: work, xattr: x} }

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
	err := m.cover(dir, name, what)
	if err == nil && m.Observe != nil {
		m.Observe()
	}
	return err
}

func (m *Maker) cover(dir *layer.Dir, name string, what Covered) error {
	if what == Nothing && !m.AUFS { // nothing to be replaced: a link is one step
		return m.link(dir, name)
	}
	s, err := m.stage()
	if m.AUFS && impossible(err) {
		return m.mark(dir, name, what)
	}
	if err != nil {
		return err
	}
	defer s.Discard()
	if err := m.ready(dir); err != nil {
		return err
	}
	how := layer.Add
	switch what {
	case File:
		how = layer.Replace
	case Directory:
		how = layer.Exchange
	}
	return s.Publish(dir, name, how)
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
	return nil
}

// Leave renames from in dir to the entry name of another directory, over what is there, and puts a whiteout in its
// place: in one step where the file system can.
func (m *Maker) Leave(dir *layer.Dir, from string, to *layer.Dir, name string) error {
	err := dir.Rename(from, to, name, unix.RENAME_WHITEOUT)
	if !impossible(err) {
		if err == nil && m.Observe != nil {
			m.Observe()
		}
		return err
	}
	// To hide before is not possible with a device, and after it, where it is not possible with a mark: of a crash in
	// between the worst is that the old name shows what it hid.
	s, err := m.stage()
	if m.AUFS && impossible(err) {
		if err := m.mark(dir, from, Nothing); err != nil {
			return err
		}
		if m.Observe != nil {
			m.Observe()
		}
		return dir.Rename(from, to, name, 0)
	}
	if err != nil {
		return err
	}
	defer s.Discard()
	if err := m.ready(dir); err != nil {
		return err
	}
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
	name := m.work.TempName()
	if err := m.link(m.work.Dir(), name); err != nil {
		return nil, err
	}
	return m.work.StageNamed(name), nil
}

// link gives a whiteout the name in dir, which is free there. EEXIST if it is not.
func (m *Maker) link(dir *layer.Dir, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	staging := m.work.Dir()
	if m.shared == "" {
		name := m.work.TempName()
		if err := m.make(staging, name); err != nil {
			return err
		}
		m.shared = name
	}
	if m.files && dir != staging {
		if err := m.Admit(dir); err != nil {
			return err
		}
	}
	err := staging.At(m.shared).LinkTo(dir, name)
	if err == unix.EMLINK { // it has all the links it can have: this one takes the shared name itself
		if err = staging.Rename(m.shared, dir, name, unix.RENAME_NOREPLACE); err == nil {
			m.shared = ""
		}
	}
	return err
}

// make makes a whiteout: a device or, where the file system has none for us, as one that is a union itself, a marked file.
//
// Preconditions: m.mu is held.
func (m *Maker) make(staging *layer.Dir, name string) error {
	if !m.files {
		err := staging.Mknod(name, unix.S_IFCHR, 0)
		if m.AUFS || !impossible(err) {
			return err
		}
	}
	fd, err := staging.Create(name, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	unix.Close(fd)
	if err := staging.At(name).Setxattr(m.xattr.Whiteout, []byte("y"), 0); err != nil {
		_ = staging.Unlink(name)
		return err
	}
	m.files = true
	return nil
}

// ready prepares dir for a whiteout that was staged.
func (m *Maker) ready(dir *layer.Dir) error {
	m.mu.Lock()
	files := m.files
	m.mu.Unlock()
	if !files {
		return nil
	}
	return m.Admit(dir)
}

// Admit says of dir that marked files in it are whiteouts, before one is put there.
//
// Precondition: nobody looks up names in dir meanwhile.
func (m *Maker) Admit(dir *layer.Dir) error {
	if dir.Marked {
		return nil
	}
	if err := dir.Self().Setxattr(m.xattr.Opaque, []byte("x"), 0); err != nil {
		return err
	}
	dir.Marked = true
	return nil
}
