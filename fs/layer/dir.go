package layer

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Dir is a directory of a layer, reached by an O_PATH descriptor: it stays the same directory when it is renamed, and
// it cannot be reached around. Its methods take one name, which is never empty, ".", ".." or a path.
//
// The descriptor may be closed while it is not used, and opened again by name; see budget. So whoever renames a
// directory that is a Dir tells it (Hold before, Moved after), and whoever removes one pins it before.
type Dir struct {
	layer *Layer

	// Marked says that empty files in this directory may be whiteouts (overlay.opaque=x). Whoever opens the
	// directory to look into it sets it.
	Marked bool

	aufs aufsNames

	mu     sync.Mutex
	fd     int    // -1 while it is closed
	users  int    // calls that use fd now; it is not closed meanwhile
	recent bool   // used since the budget looked last
	slot   int    // index in the budget's ring
	parent *Dir   // where it is opened again; nil if it is never closed before Close
	name   string // in parent
	dev    uint64 // together with ino: which directory it must be when it is opened again
	ino    uint64
}

// newRoot makes a Dir of fd that stays open.
func newRoot(fd int, l *Layer) *Dir { return &Dir{layer: l, fd: fd} }

// Adopt makes a Dir of fd, an O_PATH descriptor of the directory name of d, which becomes the Dir's.
func (d *Dir) Adopt(fd int, name string) (*Dir, error) {
	var st unix.Stat_t
	if err := RefFD(fd).Stat(&st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	sub := &Dir{layer: d.layer, fd: fd, parent: d, name: name, dev: st.Dev, ino: st.Ino, recent: true}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	d.layer.budget.opened(sub)
	return sub, nil
}

// Hold returns the descriptor of the directory, which stays open until Done. It stays the Dir's.
func (d *Dir) Hold() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		if err := d.reopenLocked(); err != nil {
			return -1, err
		}
	}
	d.users++
	d.recent = true
	return d.fd, nil
}

// Done ends a Hold.
func (d *Dir) Done() {
	d.mu.Lock()
	d.users--
	d.mu.Unlock()
}

func (d *Dir) reopenLocked() error {
	if d.parent == nil {
		return unix.EBADF // it was closed for good
	}
	parent, err := d.parent.Hold() // up the tree, so that no two wait for each other
	if err != nil {
		return err
	}
	defer d.parent.Done()
	fd, err := openDirAt(parent, d.name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := RefFD(fd).Stat(&st); err != nil || st.Dev != d.dev || st.Ino != d.ino {
		unix.Close(fd)
		return unix.ESTALE // somebody changed the layer behind our back
	}
	d.fd = fd
	d.layer.budget.opened(d)
	return nil
}

// Pin keeps the directory open from now on: it is about to lose its name.
func (d *Dir) Pin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parent == nil {
		return nil
	}
	if d.fd < 0 {
		if err := d.reopenLocked(); err != nil {
			return err
		}
	}
	d.layer.budget.closed(d)
	d.parent = nil
	return nil
}

// Moved notes that the directory is found as name in parent now.
func (d *Dir) Moved(parent *Dir, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parent != nil {
		d.parent, d.name = parent, name
	}
}

// Close releases the descriptor; the Dir must not be used afterwards.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		d.parent = nil
		return nil
	}
	if d.parent != nil {
		d.layer.budget.closed(d)
		d.parent = nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Layer is the layer that the directory belongs to.
func (d *Dir) Layer() *Layer { return d.layer }

// At is the entry name of the directory, whether there is one or not.
func (d *Dir) At(name string) Ref { return Ref{dir: d, name: name} }

// Self is the directory as an object.
func (d *Dir) Self() Ref { return Ref{dir: d} }

// Stat describes the entry name. ENOENT if there is none.
func (d *Dir) Stat(name string, st *unix.Stat_t) error { return d.At(name).Stat(st) }

// Statfs describes the file system that the directory is on.
func (d *Dir) Statfs(st *unix.Statfs_t) error {
	return d.with(func(fd int) error { return unix.Fstatfs(fd, st) })
}

// OpenDir opens the directory name. ENOTDIR if it is something else, EXDEV if a file system is mounted on it: a layer
// does not cross mounts (clone_private_mount in fs/overlayfs/super.c).
func (d *Dir) OpenDir(name string) (*Dir, error) {
	fd, err := d.Hold()
	if err != nil {
		return nil, err
	}
	defer d.Done()
	sub, err := openDirAt(fd, name)
	if err != nil {
		return nil, err
	}
	return d.Adopt(sub, name)
}

func openDirAt(dirfd int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	return sys.Openat2(dirfd, name, &how)
}

// OpenBeneath opens, as O_PATH, what is at a path below the directory. No part of it is a symbolic link, or mounted there
// (ovl_lookup_data_layer).
func (d *Dir) OpenBeneath(path string) (fd int, err error) {
	fd = -1
	err = d.with(func(at int) (err error) {
		fd, err = sys.Openat2(at, path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
		})
		return err
	})
	return fd, err
}

// with calls f with the descriptor of the directory.
func (d *Dir) with(f func(fd int) error) error {
	fd, err := d.Hold()
	if err != nil {
		return err
	}
	defer d.Done()
	return f(fd)
}

// Create makes a regular file and opens it. O_EXCL is added: EEXIST if the name is taken.
func (d *Dir) Create(name string, flags int, mode uint32) (fd int, err error) {
	fd = -1
	err = d.with(func(dirfd int) (err error) {
		fd, err = sys.Openat(dirfd, name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode)
		return err
	})
	return fd, err
}

// CreateUnnamed makes a regular file without a name, to be linked later (O_TMPFILE), and opens it.
func (d *Dir) CreateUnnamed(flags int, mode uint32) (fd int, err error) {
	fd = -1
	err = d.with(func(dirfd int) (err error) {
		fd, err = sys.Openat(dirfd, ".", flags|unix.O_TMPFILE, mode)
		return err
	})
	return fd, err
}

// Mkdir makes a directory.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.with(func(fd int) error { return sys.Mkdirat(fd, name, mode) })
}

// Mknod makes a file of any type but a directory or symbolic link.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	return d.with(func(fd int) error { return sys.Mknodat(fd, name, mode, int(rdev)) })
}

// Symlink makes a symbolic link.
func (d *Dir) Symlink(target, name string) error {
	return d.with(func(fd int) error { return sys.Symlinkat(target, fd, name) })
}

// Unlink removes a name that is not a directory's.
func (d *Dir) Unlink(name string) error {
	return d.with(func(fd int) error { return sys.Unlinkat(fd, name, 0) })
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	return d.with(func(fd int) error { return sys.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
}

// Rename moves the entry name to the entry newName of to; flags as in renameat2(2).
func (d *Dir) Rename(name string, to *Dir, newName string, flags uint) error {
	return d.with(func(from int) error {
		return to.with(func(fd int) error { return sys.Renameat2(from, name, fd, newName, flags) })
	})
}

// Entries calls f for every entry of the directory but "." and "..", in the order of the file system. The name in the
// entry is valid only inside f. The time of last access stays as it is, if we may ask for that (ovl_path_open).
func (d *Dir) Entries(f func(sys.Dirent) error) error {
	return d.entries(unix.O_NOATIME, f)
}

// EntriesFor is Entries on behalf of a user: it sets the time of last access.
func (d *Dir) EntriesFor(user bool, f func(sys.Dirent) error) error {
	if user {
		return d.entries(0, f)
	}
	return d.Entries(f)
}

func (d *Dir) entries(flag int, f func(sys.Dirent) error) error {
	fd, err := d.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY | flag)
	if err == unix.EPERM && flag != 0 { // O_NOATIME is for the owner, and for who has CAP_FOWNER
		fd, err = d.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return sys.Dirents(fd, f)
}

// Names returns the names of the entries.
func (d *Dir) Names() ([]string, error) {
	var names []string
	err := d.Entries(func(e sys.Dirent) error {
		names = append(names, string(e.Name))
		return nil
	})
	return names, err
}

// RemoveAll removes the entry name with everything below it. It is not an error if there is none.
func (d *Dir) RemoveAll(name string) error {
	err := d.Unlink(name)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM { // EPERM: what POSIX has for unlink of a directory
		return err
	}
	if err := d.Rmdir(name); err != unix.ENOTEMPTY {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names() // first the list, then the removals: deleting while reading may skip entries
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := sub.RemoveAll(n); err != nil {
			return err
		}
	}
	return d.Rmdir(name)
}
