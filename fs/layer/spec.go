package layer

import (
	"errors"
	"fmt"
)

// Spec is a union as text: which directories it stacks and with what options. It is independent of the host;
// [Open] is what looks at the disk.
type Spec struct {
	Lower   []string // lower layers, the topmost first, as in overlayfs's lowerdir=
	Upper   string   // the writable layer; empty for a read-only union
	Work    string   // overlayfs's workdir; on the file system of Upper; empty without Upper
	Options Options
}

// Options are the mount options of a union that are not directories. The zero value is the default.
type Options struct {
	ReadOnly  bool   // ro: refuse every write, even with an upper layer
	NoSuid    bool   // nosuid
	NoDev     bool   // nodev
	NoExec    bool   // noexec
	UserXattr bool   // userxattr: marks are user.overlay.*, for where trusted.* is not allowed
	Volatile  bool   // volatile: fsync and sync write nothing; the upper does not survive a crash
	FsName    string // fsname=: what /proc/mounts shows as source; "unionfsd" or "overlay" by default
	Subtype   string // subtype=: the NAME of fuse.NAME in /proc/mounts; "unionfsd" by default; FUSE only
}

// errEmptyLower is about two colons in a row, or one at an end. In the kernel "::" opens the data-only layers,
// which a union does not have.
var errEmptyLower = errors.New("a lower layer has an empty name: drop the extra colon, or write \\: for a colon in a name")

// Validate reports what can be seen to be wrong with s without a look at the disk, in one line with the cause
// and the fix.
func (s Spec) Validate() error {
	if len(s.Lower) == 0 {
		return errors.New("no lower layer: name at least one (lowerdir=DIR)")
	}
	for _, dir := range s.Lower {
		if dir == "" {
			return errEmptyLower
		}
	}
	if s.Upper != "" && s.Work == "" {
		return fmt.Errorf("upper layer %q without a work directory: add workdir=DIR, an empty directory on the same file system", s.Upper)
	}
	if s.Upper == "" && s.Work != "" {
		return fmt.Errorf("work directory %q without an upper layer: add upperdir=DIR, or drop workdir for a read-only union", s.Work)
	}
	return nil
}
