package layer

import (
	"errors"
	"fmt"
	"slices"
)

// Spec is a union as text: which directories it stacks and with what options. It is independent of the host;
// [Open] is what looks at the disk.
type Spec struct {
	Lower   []string // lower layers, the topmost first, as in overlayfs's lowerdir=
	Data    []string // data-only lower layers: they show no names, and have the data of files of Lower that tell where
	Upper   string   // the writable layer; empty for a read-only union
	Work    string   // overlayfs's workdir; on the file system of Upper; empty without Upper
	Options Options
}

// Options are the mount options of a union that are not directories. The zero value is the default.
type Options struct {
	ReadOnly  bool // ro: refuse every write, even with an upper layer
	NoSuid    bool // nosuid
	NoDev     bool // nodev
	NoExec    bool // noexec
	Atime     Atime
	NoDirTime bool // nodiratime: reading a directory leaves its time of last access as it is
	UserXattr bool // userxattr: marks are user.overlay.*, for where trusted.* is not allowed
	Volatile  bool // volatile: fsync and sync write nothing; the upper does not survive a crash

	// RedirectDir is redirect_dir=: what a rename does with a directory that lower layers show through.
	RedirectDir RedirectMode

	// Metacopy is metacopy=on: a change of metadata copies up the metadata alone, and the data stay in the lower
	// layer until the first write.
	Metacopy bool

	// Index is index=on: the names of a lower file stay names of one file when it is copied up.
	Index bool

	// NFSExport is nfs_export=on: files have handles by which they are found again (open_by_handle_at(2), NFS). The
	// kernel's overlayfs keeps them in the index, which nfs_export=on switches on; with the FUSE backend they are good until
	// the union is unmounted.
	NFSExport bool

	// Xino is xino=: how inode numbers of layers on several file systems are made unique. With the FUSE backend they
	// always are, and stay as they are.
	Xino Xino

	// LowerImmutable is lower=immutable: nobody changes the lower layers while the union is mounted. The kernel's
	// overlayfs takes that for granted.
	LowerImmutable bool

	// FUSE is what only the FUSE backend can do.
	FUSE FUSEOptions

	FsName  string // fsname=: what /proc/mounts shows as source; "unionfsd" or "overlay" by default
	Subtype string // subtype=: the NAME of fuse.NAME in /proc/mounts; "unionfsd" by default; FUSE only
}

// Atime is when reading a file of the upper layer sets its time of last access (mount(8)). Those of lower layers stay as
// they are.
type Atime string

const (
	AtimeDefault Atime = "" // relatime: where it would be older than the last change, or a day
	AtimeNever   Atime = "noatime"
	AtimeAlways  Atime = "strictatime"
)

// Xino is a value of overlayfs's xino option.
type Xino string

const (
	XinoDefault Xino = "" // off
	XinoOn      Xino = "on"
	XinoAuto    Xino = "auto"
	XinoOff     Xino = "off"
)

// RedirectMode is a value of overlayfs's redirect_dir option.
type RedirectMode string

const (
	RedirectDefault  RedirectMode = ""         // off; nofollow with userxattr, as the kernel insists
	RedirectOn       RedirectMode = "on"       // a renamed directory notes where its lower parts are
	RedirectFollow   RedirectMode = "follow"   // none is made, those that are there are followed
	RedirectNoFollow RedirectMode = "nofollow" // a directory that has one is refused with EPERM
	RedirectOff      RedirectMode = "off"      // follow, as with the kernel's default redirect_always_follow=Y
)

// Redirects is the mode that the options amount to: metacopy needs redirects, and switches them on.
func (o Options) Redirects() RedirectMode {
	if o.Metacopy && o.RedirectDir == RedirectDefault {
		return RedirectOn
	}
	return o.RedirectDir
}

// Indexes reports whether lower files that are copied up are found by an index: handles need one, and switch it on.
func (o Options) Indexes() bool { return o.Index || o.NFSExport }

// Creates reports whether renames make redirects.
func (m RedirectMode) Creates() bool { return m == RedirectOn }

// Follows reports whether redirects are followed in a union whose marks are user.overlay.* or not: a user could
// forge those, so there they are not (fs/overlayfs/params.c, ovl_fs_params_verify).
func (m RedirectMode) Follows(userXattr bool) bool { return m != RedirectNoFollow && !userXattr }

// errEmptyLower is about a colon at an end, or three in a row.
var errEmptyLower = errors.New("a lower layer has an empty name: drop the extra colon, or write \\: for a colon in a name")

// errLowerAfterData is the kernel's rule, too (ovl_mount_dir_check).
var errLowerAfterData = errors.New("a lower layer follows a data-only one: name those last (lowerdir=A:B::DATA, or datadir+=DATA)")

// Validate reports what can be seen to be wrong with s without a look at the disk, in one line with the cause
// and the fix.
func (s Spec) Validate() error {
	if len(s.Lower) == 0 {
		return errors.New("no lower layer: name at least one (lowerdir=DIR)")
	}
	for _, dir := range slices.Concat(s.Lower, s.Data) {
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
	return s.checkOptions()
}

// checkOptions refuses what overlayfs refuses together (ovl_fs_params_verify).
func (s Spec) checkOptions() error {
	o := s.Options
	follows := s.Upper == "" && o.RedirectDir == RedirectFollow // where nothing is renamed
	switch {
	case o.Metacopy && o.RedirectDir != RedirectDefault && o.RedirectDir != RedirectOn && !follows:
		return fmt.Errorf("metacopy=on does not go with redirect_dir=%s: a file that is renamed must note where its data are; drop one of the two", o.RedirectDir)
	case o.NFSExport && o.Metacopy:
		return errors.New("nfs_export=on does not go with metacopy=on: drop one of the two")
	case !o.UserXattr:
		return nil
	case o.RedirectDir == RedirectOn || o.RedirectDir == RedirectFollow:
		return fmt.Errorf("redirect_dir=%s does not go with userxattr: a user could forge redirects; drop one of the two", o.RedirectDir)
	case o.Metacopy:
		return errors.New("metacopy=on does not go with userxattr: a user could forge it; drop one of the two")
	}
	return nil
}
