package layer

import (
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Dir is an open directory of a layer, held as an O_PATH descriptor: it stays the same directory when it is
// renamed, and it cannot be reached around. Its methods take one name, which is never empty, ".", ".." or a path.
type Dir struct {
	fd    int
	layer *Layer

	// Marked says that empty files in this directory may be whiteouts (overlay.opaque=x). Whoever opens the
	// directory to look into it sets it.
	Marked bool
}

// NewDir makes a Dir of fd, an O_PATH descriptor of a directory of l, which becomes the Dir's.
func NewDir(fd int, l *Layer) *Dir { return &Dir{fd: fd, layer: l} }

// FD is the descriptor of the directory. It stays the Dir's.
func (d *Dir) FD() int { return d.fd }

// Layer is the layer that the directory belongs to.
func (d *Dir) Layer() *Layer { return d.layer }

// Close releases the descriptor; the Dir must not be used afterwards.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// At is the entry name of the directory, whether there is one or not.
func (d *Dir) At(name string) Ref { return Ref{fd: d.fd, name: name} }

// Self is the directory as an object.
func (d *Dir) Self() Ref { return Ref{fd: d.fd} }

// Stat describes the entry name. ENOENT if there is none.
func (d *Dir) Stat(name string, st *unix.Stat_t) error { return d.At(name).Stat(st) }

// OpenDir opens the directory name. ENOTDIR if it is something else, EXDEV if a file system is mounted on it:
// a layer does not cross mounts (clone_private_mount in fs/overlayfs/super.c).
func (d *Dir) OpenDir(name string) (*Dir, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(d.fd, name, &how)
		switch err {
		case nil:
			return &Dir{fd: fd, layer: d.layer}, nil
		case unix.EINTR, unix.EAGAIN: // EAGAIN: a rename elsewhere made the kernel unsure; openat2(2)
		default:
			return nil, err
		}
	}
}

// Create makes a regular file and opens it. O_EXCL is added: EEXIST if the name is taken.
func (d *Dir) Create(name string, flags int, mode uint32) (int, error) {
	return sys.Openat(d.fd, name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode)
}

// CreateUnnamed makes a regular file without a name, to be linked later (O_TMPFILE), and opens it.
func (d *Dir) CreateUnnamed(flags int, mode uint32) (int, error) {
	return sys.Openat(d.fd, ".", flags|unix.O_TMPFILE, mode)
}

// Mkdir makes a directory.
func (d *Dir) Mkdir(name string, mode uint32) error { return unix.Mkdirat(d.fd, name, mode) }

// Mknod makes a file of any type but a directory or symbolic link.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	return unix.Mknodat(d.fd, name, mode, int(rdev))
}

// Symlink makes a symbolic link.
func (d *Dir) Symlink(target, name string) error { return unix.Symlinkat(target, d.fd, name) }

// Unlink removes a name that is not a directory's.
func (d *Dir) Unlink(name string) error { return unix.Unlinkat(d.fd, name, 0) }

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) }

// Rename moves the entry name to the entry newName of to; flags as in renameat2(2).
func (d *Dir) Rename(name string, to *Dir, newName string, flags uint) error {
	return unix.Renameat2(d.fd, name, to.fd, newName, flags)
}

// Entries calls f for every entry of the directory but "." and "..", in the order of the file system. The name in
// the entry is valid only inside f.
func (d *Dir) Entries(f func(sys.Dirent) error) error {
	fd, err := sys.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
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
