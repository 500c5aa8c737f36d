package layer

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Override is the name of the extended attribute in which a layer keeps the owner, the mode and the type of its files,
// or empty if they are those of the file system. It is for layers where the daemon, or who unpacks images, may not
// chown or mknod: on NFS, in a user namespace with one id. The files themselves are then the daemon's, and a device is
// an empty regular file. Value: UID:GID:MODE[:TYPE], the mode octal, the type as in [overrideTypes].
type Override string

// The attributes that are in use: of fuse-overlayfs for a privileged daemon, of containers/storage, and of
// fuse-overlayfs for an unprivileged one before that.
const (
	overridePrivileged Override = "security.fuseoverlayfs.override_stat"
	overrideContainers Override = "user.containers.override_stat"
	overrideLegacy     Override = "user.fuseoverlayfs.override_stat"
)

// Attr is the attribute that the option asks for.
func (o OverrideStat) Attr() Override {
	switch o {
	case OverridePrivileged:
		return overridePrivileged
	case OverrideContainers:
		return overrideContainers
	default:
		return ""
	}
}

// OverrideOf finds out which attribute a lower layer has, by its root.
func OverrideOf(root *Dir) (Override, error) {
	for _, o := range []Override{overridePrivileged, overrideContainers, overrideLegacy} {
		switch _, err := root.Self().GetxattrInto(string(o), nil); err {
		case nil:
			return o, nil
		case unix.ENODATA, unix.EOPNOTSUPP:
		default:
			return "", err
		}
	}
	return "", nil
}

// overrideTypes are the words for types. A block or a character device is followed by its numbers: block-8-0.
var overrideTypes = map[string]uint32{
	"file": unix.S_IFREG, "dir": unix.S_IFDIR, "symlink": unix.S_IFLNK, "pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK,
	"block": unix.S_IFBLK, "char": unix.S_IFCHR,
}

// Apply puts into st, which describes r, what the attribute says. Nothing changes if there is none. EIO if it cannot be
// understood.
func (o Override) Apply(r Ref, st *unix.Stat_t) error {
	if o == "" {
		return nil
	}
	var buf [64]byte
	n, err := r.GetxattrInto(string(o), buf[:])
	switch {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP:
		return nil
	case err == unix.ERANGE:
		return unix.EIO
	case err != nil:
		return err
	}
	if parseOverride(string(buf[:n]), st) != nil {
		return unix.EIO
	}
	return nil
}

func parseOverride(value string, st *unix.Stat_t) error {
	fields := strings.Split(value, ":")
	if len(fields) != 3 && len(fields) != 4 {
		return errors.New("not UID:GID:MODE[:TYPE]")
	}
	uid, err1 := strconv.ParseUint(fields[0], 10, 32)
	gid, err2 := strconv.ParseUint(fields[1], 10, 32)
	mode, err3 := strconv.ParseUint(fields[2], 8, 32)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	kind, rdev := st.Mode&unix.S_IFMT, st.Rdev
	if len(fields) == 4 {
		word, device, _ := strings.Cut(fields[3], "-")
		known := false
		if kind, known = overrideTypes[word]; !known {
			return fmt.Errorf("unknown type %q", word)
		}
		if kind == unix.S_IFBLK || kind == unix.S_IFCHR {
			var major, minor uint32
			if n, err := fmt.Sscanf(device, "%d-%d", &major, &minor); n != 2 {
				return err
			}
			rdev = unix.Mkdev(major, minor)
		}
	}
	st.Uid, st.Gid, st.Mode, st.Rdev = uint32(uid), uint32(gid), uint32(mode)&0o7777|kind, rdev
	return nil
}

// Write makes the attribute say what st does. A symbolic link may not be able to have it.
func (o Override) Write(r Ref, st *unix.Stat_t) error {
	err := r.Setxattr(string(o), formatOverride(st), 0)
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && (err == unix.EPERM || err == unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func formatOverride(st *unix.Stat_t) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d:%d:%o", st.Uid, st.Gid, st.Mode&0o7777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		b.WriteString(":pipe")
	case unix.S_IFSOCK:
		b.WriteString(":socket")
	case unix.S_IFBLK:
		fmt.Fprintf(&b, ":block-%d-%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFCHR:
		fmt.Fprintf(&b, ":char-%d-%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return b.Bytes()
}

// Backing is the mode of the file that stands for one of the given mode: the daemon must be able to use it whoever it
// seems to belong to, and what it cannot make is a regular file.
func (o Override) Backing(mode uint32) uint32 {
	if o == "" {
		return mode
	}
	switch kind := mode & unix.S_IFMT; kind {
	case unix.S_IFDIR, unix.S_IFLNK, unix.S_IFREG:
		return kind | mode&0o777 | 0o755
	default:
		return unix.S_IFREG | 0o755
	}
}

// securityPrefix is where user.containers keeps security.*, which an unprivileged daemon may not set either.
const (
	securityPrefix   = "security."
	overrideSecurity = "user.containers.override_security."
)

// ToDisk is the name under which the attribute that a user calls name is kept.
func (o Override) ToDisk(name string) string {
	if rest, ok := strings.CutPrefix(name, securityPrefix); ok && o == overrideContainers {
		return overrideSecurity + rest
	}
	return name
}

// FromDisk is the inverse of ToDisk.
func (o Override) FromDisk(disk string) string {
	if rest, ok := strings.CutPrefix(disk, overrideSecurity); ok && o == overrideContainers {
		return securityPrefix + rest
	}
	return disk
}

// IsOverride reports whether the attribute is one that files are described by, for one of the programs that do so. Users
// neither see nor set it.
func IsOverride(disk string) bool {
	for _, prefix := range []string{"user.containers.", "user.fuseoverlayfs.", "security.fuseoverlayfs."} {
		if strings.HasPrefix(disk, prefix) {
			return true
		}
	}
	return false
}
