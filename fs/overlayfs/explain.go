package overlayfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// unsupported is an error that matches errors.ErrUnsupported: another backend may do what this one cannot.
type unsupported struct{ error }

func (unsupported) Is(target error) bool { return target == errors.ErrUnsupported }

func cannot(format string, args ...any) error { return unsupported{fmt.Errorf(format, args...)} }

// failure is what the kernel answered.
type failure struct {
	option option // the one that was refused; none if it was the union as a whole
	errno  error
	log    []string // what it said to that; nothing in many cases
}

func (f failure) says(text string) bool { return strings.Contains(strings.Join(f.log, "\n"), text) }

// explain turns a refusal of overlayfs into one line with the cause and the fix. Much of what it refuses it explains
// only in the kernel's log, or nowhere: then the layers are examined for what is known to be refused.
func (u *union) explain(f failure) error {
	for _, cause := range []func(failure) error{
		u.unknownOption, u.needsMetacopy, u.badUpper, u.badLayer, u.overlap, u.tooDeep, u.privilege,
	} {
		if err := cause(f); err != nil {
			return err
		}
	}
	what := "make the overlay"
	if f.option.name != "" {
		what = fmt.Sprintf("give overlayfs %q", f.option.String())
	}
	if len(f.log) > 0 {
		return fmt.Errorf("%s: %w: %s", what, f.errno, strings.Join(f.log, "; "))
	}
	return fmt.Errorf("%s: %w; the kernel's log may say why (dmesg | grep overlayfs)", what, f.errno)
}

// since says which kernel brought an option that is not in all kernels that this package supports.
var since = map[string]string{"userxattr": "5.11", "volatile": "5.10", "datadir+": "6.8"}

func (u *union) unknownOption(f failure) error {
	version, recent := since[f.option.name]
	if f.errno != unix.EINVAL || !recent {
		return nil
	}
	return cannot("this kernel's overlayfs does not know the option %s, which came with Linux %s: do without it, or use --backend fuse", f.option.name, version)
}

// needsMetacopy is a rule for data-only layers before Linux 6.16 (ovl_fs_params_verify).
func (u *union) needsMetacopy(f failure) error {
	if f.errno != unix.EINVAL || f.option.name != "" || len(u.data) == 0 || u.stack.Spec.Options.Metacopy {
		return nil
	}
	return cannot("this kernel's overlayfs may take data-only layers only with metacopy=on: add it, or use --backend fuse (%w)", f.errno)
}

// badUpper is about what can be below an upper layer (ovl_mount_dir_check, ovl_make_workdir).
func (u *union) badUpper(f failure) error {
	if f.errno != unix.EINVAL || u.upper == nil {
		return nil
	}
	about := u.upper
	if f.option.name == "workdir" {
		about = u.work
	}
	if f.option.name != "" && f.option.dir != about {
		return nil
	}
	switch kind := u.upper.fsType(); {
	case kind == "overlay":
		return cannot("%s is itself on an overlay, where overlayfs takes no upper layer: choose a directory on a disk or tmpfs, or use --backend fuse", about)
	case f.says("is read-only"):
		return fmt.Errorf("%s is on a read-only mount: remount it read-write, or choose another directory", about)
	case remote[kind]:
		return cannot("%s is on %s, which lacks what overlayfs needs of an upper layer: choose a directory on a disk or tmpfs, or use --backend fuse", about, kind)
	}
	return nil
}

// badLayer is about file systems that overlayfs does not take at all: those that ignore case and those that mount by
// themselves (ovl_dentry_weird), and proc, which says that it is stacked as deeply as can be.
func (u *union) badLayer(f failure) error {
	if f.errno != unix.EINVAL && f.errno != unix.EREMOTE {
		return nil
	}
	for _, d := range u.all() {
		bad := d.fsType() == "proc"
		if d == f.option.dir {
			bad = bad || f.says("not supported") || f.errno == unix.EREMOTE
		}
		if bad {
			return cannot("%s is on a file system that overlayfs does not take (%s): choose another directory, or use --backend fuse", d, d.fsType())
		}
	}
	return nil
}

// overlap finds the layers that contain one another, for which overlayfs gives ELOOP (ovl_check_overlapping_layers).
func (u *union) overlap(f failure) error {
	if f.errno != unix.ELOOP {
		return nil
	}
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	lowers := slices.Concat(u.lowers, u.data)
	for i, d := range lowers {
		others := slices.Concat(lowers[:i], lowers[i+1:])
		if u.upper != nil {
			others = append(others, u.upper, u.work)
		}
		switch outer := d.inside(others, mounts); {
		case outer == nil:
		case outer.is(d):
			return cannot("%s and %s are the same directory: name it once", d, outer)
		default:
			return cannot("%s is inside %s, and layers of an overlay may not overlap: name directories that do not contain one another, or use --backend fuse", d, outer)
		}
	}
	return nil
}

// tooDeep is FILESYSTEM_MAX_STACK_DEPTH: a file system that stands on others may stand on one that does, and that is
// all. How deep a file system stands is not to be seen from outside.
func (u *union) tooDeep(f failure) error {
	if f.errno != unix.EINVAL || f.option.name != "" {
		return nil
	}
	for _, d := range u.all() {
		switch kind := d.fsType(); kind {
		case "overlay", "FUSE", "ecryptfs":
			return cannot("%s is itself on %s, and overlayfs stacks file systems no more than two deep: choose layers on a plain file system, or use --backend fuse", d, kind)
		}
	}
	return nil
}

func (u *union) privilege(f failure) error {
	if f.errno != unix.EPERM && f.errno != unix.EACCES {
		return nil
	}
	return cannot("the kernel does not let this process mount an overlay of these layers (%w): run as root, check who may write in upper and work, or use --backend fuse", f.errno)
}

// fsType names the file system of the directory, as far as that matters here.
func (d *directory) fsType() string {
	var st unix.Statfs_t
	if unix.Fstatfs(d.fd, &st) != nil {
		return "an unknown one"
	}
	if name, known := fsTypes[st.Type]; known {
		return name
	}
	return fmt.Sprintf("type %#x of statfs(2)", st.Type)
}

var fsTypes = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.ECRYPTFS_SUPER_MAGIC:  "ecryptfs",
	unix.PROC_SUPER_MAGIC:      "proc",
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.SMB2_SUPER_MAGIC:      "SMB",
	unix.CIFS_SUPER_MAGIC:      "SMB",
	unix.V9FS_MAGIC:            "9P",
	unix.CEPH_SUPER_MAGIC:      "Ceph",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.AUTOFS_SUPER_MAGIC:    "autofs",
	unix.MSDOS_SUPER_MAGIC:     "FAT",
	unix.EXFAT_SUPER_MAGIC:     "exFAT",
}

// remote are the file systems on which an upper layer must have d_type, RENAME_WHITEOUT and xattrs, and mostly fails
// to ("upper fs missing required features").
var remote = map[string]bool{"FUSE": true, "NFS": true, "SMB": true, "9P": true, "Ceph": true}
