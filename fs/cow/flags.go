package cow

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Protection is what nobody may do to a file: flags of chattr(1). A copy has them in overlay.protattr, a letter for each:
// the union could not work on a file that has them for the file system, too (fs/overlayfs/util.c, ovl_set_protattr).
type Protection uint32

const (
	Immutable  Protection = 1 << iota // +i: nothing of it changes
	AppendOnly                        // +a: it only grows
)

// ProtectionOf is how the file system protects a file that stx describes.
func ProtectionOf(stx *unix.Statx_t) (p Protection) {
	if stx.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		p |= Immutable
	}
	if stx.Attributes&unix.STATX_ATTR_APPEND != 0 {
		p |= AppendOnly
	}
	return p
}

// ReadProtection tells how an upper file is protected by its mark. A letter that is none is not taken note of, as by the
// kernel.
func ReadProtection(r layer.Ref, x layer.XattrNames) (p Protection, err error) {
	var buf [16]byte
	n, err := r.GetxattrInto(x.ProtAttr, buf[:])
	switch err {
	case nil:
	case unix.ENODATA, unix.EOPNOTSUPP, unix.ERANGE:
		return 0, nil
	default:
		return 0, err
	}
	for _, letter := range buf[:n] {
		switch letter {
		case 'a':
			p |= AppendOnly
		case 'i':
			p |= Immutable
		default:
			return p, nil
		}
	}
	return p, nil
}

// WriteProtection marks an upper file as protected, or takes the mark away. EPERM where marks cannot be had.
func WriteProtection(r layer.Ref, x layer.XattrNames, p Protection) error {
	var letters []byte
	if p&AppendOnly != 0 {
		letters = append(letters, 'a')
	}
	if p&Immutable != 0 {
		letters = append(letters, 'i')
	}
	if len(letters) == 0 {
		err := r.Removexattr(x.ProtAttr)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			return nil
		}
		return err
	}
	err := r.Setxattr(x.ProtAttr, letters, 0)
	if err == unix.EOPNOTSUPP {
		return unix.EPERM
	}
	return err
}

// Flags are those of chattr(1) that a copy has as its source has them (OVL_COPY_FS_FLAGS_MASK), as in FS_IOC_GETFLAGS.
type Flags uint32

const (
	flagSync       Flags = 0x08 // FS_SYNC_FL
	flagImmutable  Flags = 0x10 // FS_IMMUTABLE_FL
	flagAppendOnly Flags = 0x20 // FS_APPEND_FL
	flagNoAtime    Flags = 0x80 // FS_NOATIME_FL
)

// Protection is what the flags say of that.
func (f Flags) Protection() (p Protection) {
	if f&flagImmutable != 0 {
		p |= Immutable
	}
	if f&flagAppendOnly != 0 {
		p |= AppendOnly
	}
	return p
}

// FlagsOf returns the flags of a lower object that st describes. What cannot have them, or cannot be opened, has none.
func FlagsOf(r layer.Ref, st *unix.Stat_t) (Flags, error) {
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return 0, nil
	}
	fd, err := r.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err == unix.EACCES {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	flags, err := sys.FileFlags(fd)
	if noFlags(err) {
		return 0, nil
	}
	return Flags(flags), err
}

// noFlags reports whether an error says that a file system has no flags.
func noFlags(err error) bool {
	return err == unix.ENOTTY || err == unix.EINVAL || err == unix.EOPNOTSUPP
}

// flags gives the copy dst the flags of its source, where its file system has them. Like ovl_copy_fileattr.
func (c *Copier) flags(dst layer.Ref, src Source) error {
	if p := src.Flags.Protection(); p != 0 {
		if err := WriteProtection(dst, c.Xattr, p); err != nil && err != unix.EPERM {
			return fmt.Errorf("mark as protected: %w", err)
		}
	}
	const same = flagSync | flagNoAtime
	if src.Flags&same == 0 || c.Override != "" {
		return nil
	}
	fd, err := dst.Open(unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("set flags: %w", err)
	}
	defer unix.Close(fd)
	flags, err := sys.FileFlags(fd)
	if err == nil {
		err = sys.SetFileFlags(fd, flags&^uint32(same)|uint32(src.Flags&same))
	}
	if err != nil && !noFlags(err) {
		return fmt.Errorf("set flags: %w", err)
	}
	return nil
}
