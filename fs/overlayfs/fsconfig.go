package overlayfs

import (
	"cmp"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// form is a way to give layers to the kernel.
type form int

const (
	anyForm   form = iota
	byFD           // fsconfig, descriptors: Linux 6.13
	byStrings      // fsconfig, lowerdir+ with paths: Linux 6.7
	byText         // mount(2), one text
)

// bestForm finds out, on contexts that it throws away, what the kernel's overlayfs takes.
func bestForm() (form, error) {
	fsfd, err := fsopen("overlay")
	if err != nil {
		return anyForm, err
	}
	defer unix.Close(fsfd)
	root, err := sys.Openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return anyForm, fmt.Errorf("open /: %w", err)
	}
	defer unix.Close(root)
	if unix.FsconfigSetFd(fsfd, "lowerdir+", root) == nil {
		return byFD, nil
	}
	// Before it knew fsconfig, overlayfs took any string and only complained at the end (legacy_parse_param).
	takesAnything := unix.FsconfigSetString(fsfd, "unionfsd-no-such-option", "/") == nil
	if !takesAnything && unix.FsconfigSetString(fsfd, "lowerdir+", "/") == nil {
		return byStrings, nil
	}
	return byText, nil
}

func fsopen(fsType string) (int, error) {
	fsfd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	switch err {
	case nil:
		return fsfd, nil
	case unix.ENODEV:
		return -1, cannot("this kernel has no %s: load it (modprobe %s), or use --backend fuse", fsType, fsType)
	case unix.EPERM:
		return -1, cannot("no privilege to mount %s: run as root, or in a user and mount namespace of your own (unshare -Urm), or use --backend fuse", fsType)
	case unix.ENOSYS:
		return -1, cannot("this kernel has no fsopen(2), or a seccomp filter hides it: it needs Linux 5.2, or use --backend fuse")
	default:
		return -1, fmt.Errorf("fsopen %s: %w", fsType, err)
	}
}

// option is one parameter of overlayfs. It is a flag if neither value nor dir is set.
type option struct {
	name  string
	value string
	dir   *directory
}

func (o option) String() string {
	switch {
	case o.dir != nil:
		return o.name + "=" + o.dir.path
	case o.value != "":
		return o.name + "=" + o.value
	}
	return o.name
}

// options are the parameters of the union, layers last.
func (u *union) options() []option {
	opt := u.stack.Spec.Options
	user := u.stack.Xattr.User()
	list := []option{
		{name: "index", value: onOff(opt.Indexes())},
		{name: "metacopy", value: onOff(opt.Metacopy)},
		{name: "redirect_dir", value: redirectDir(opt.Redirects(), user)},
		{name: "nfs_export", value: onOff(opt.NFSExport)},
		{name: "xino", value: cmp.Or(string(opt.Xino), "off")},
	}
	if user {
		list = append(list, option{name: "userxattr"})
	}
	for _, d := range u.lowers {
		list = append(list, option{name: "lowerdir+", dir: d})
	}
	for _, d := range u.data {
		list = append(list, option{name: "datadir+", dir: d})
	}
	if u.upper == nil {
		return list
	}
	if u.stack.Spec.Options.Volatile {
		list = append(list, option{name: "volatile"})
	}
	return append(list, option{name: "upperdir", dir: u.upper}, option{name: "workdir", dir: u.work})
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// redirectDir is the value of redirect_dir. It is never "off": what that means depends on a parameter of the module,
// and with userxattr the kernel refuses it where that parameter turns it into "follow".
func redirectDir(m layer.RedirectMode, user bool) string {
	switch {
	case m.Creates():
		return "on"
	case m.Follows(user):
		return "follow"
	default:
		return "nofollow"
	}
}

// source is what /proc/mounts shows as the device.
func (u *union) source() string {
	if name := u.stack.Spec.Options.FsName; name != "" {
		return name
	}
	return "overlay"
}

// configure returns a context that has taken every option. Nothing exists of the union yet.
func (u *union) configure() (int, error) {
	if n := len(u.source()); n > maxString {
		return -1, fmt.Errorf("fsname is %d bytes long, overlayfs takes %d: choose a shorter one", n, maxString)
	}
	fsfd, err := fsopen("overlay")
	if err != nil {
		return -1, err
	}
	list := append(u.options(), option{name: "source", value: u.source()})
	if u.stack.Spec.Options.ReadOnly {
		list = append(list, option{name: "ro"})
	}
	for _, o := range list {
		if err := u.set(fsfd, o); err != nil {
			err = u.explain(failure{option: o, errno: err, log: readLog(fsfd)})
			unix.Close(fsfd)
			return -1, err
		}
	}
	return fsfd, nil
}

func (u *union) set(fsfd int, o option) error {
	switch {
	case o.dir != nil && u.form == byFD:
		return unix.FsconfigSetFd(fsfd, o.name, o.dir.fd)
	case o.dir != nil:
		return unix.FsconfigSetString(fsfd, o.name, o.asString())
	case o.value != "":
		return unix.FsconfigSetString(fsfd, o.name, o.value)
	default:
		return unix.FsconfigSetFlag(fsfd, o.name)
	}
}

// maxString is how long a string fsconfig(2) takes, in bytes.
const maxString = 255

// asString returns what fsconfig(2) takes for a directory: the kernel's own path of it, which mountinfo will show, if
// it leads back here and is short enough, else one by its descriptor. Overlayfs drops backslashes in upperdir and
// workdir, not in lowerdir+ and datadir+.
func (o option) asString() string {
	path, value := o.dir.realPath(), o.dir.realPath()
	if o.name != "lowerdir+" && o.name != "datadir+" {
		value = strings.ReplaceAll(value, `\`, `\\`)
	}
	var st unix.Stat_t
	if len(value) > maxString || unix.Stat(path, &st) != nil || st.Dev != o.dir.st.Dev || st.Ino != o.dir.st.Ino {
		return sys.ProcPath(o.dir.fd, "")
	}
	return value
}

// mount makes the union and returns it as a detached mount.
func (u *union) mount() (int, error) {
	lone := u.upper == nil && len(u.lowers)+len(u.data) == 1
	switch {
	case u.form == byText:
		return u.mountByText()
	case u.form == byStrings && lone: // the empty second layer would have to be a descriptor
		return u.mountByText()
	case u.form == byStrings && u.upper != nil && u.writableNamesTooLong():
		return u.mountByText()
	}
	fsfd, err := u.configure()
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	if lone {
		if err := addEmptyLayer(fsfd); err != nil {
			return -1, err
		}
	}
	if err := u.create(fsfd); err != nil {
		if lone && err == unix.EINVAL { // detached layers are taken since Linux 6.15
			return u.mountByText()
		}
		return -1, u.explain(failure{errno: err, log: readLog(fsfd)})
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, u.mountAttrs())
	if err != nil {
		return -1, fmt.Errorf("fsmount of the new overlay: %w", err)
	}
	return fd, nil
}

// writableNamesTooLong reports whether upper or work could only be named by a descriptor. Nobody who reads mountinfo
// would know then which directories are in use.
func (u *union) writableNamesTooLong() bool {
	for _, o := range []option{{name: "upperdir", dir: u.upper}, {name: "workdir", dir: u.work}} {
		if strings.HasPrefix(o.asString(), "/proc/self/") {
			return true
		}
	}
	return false
}

func (u *union) mountAttrs() int {
	o := u.stack.Spec.Options
	attrs := 0
	for _, a := range []struct {
		set  bool
		attr int
	}{
		{o.ReadOnly, unix.MOUNT_ATTR_RDONLY},
		{o.NoSuid, unix.MOUNT_ATTR_NOSUID},
		{o.NoDev, unix.MOUNT_ATTR_NODEV},
		{o.NoExec, unix.MOUNT_ATTR_NOEXEC},
		{true, int(o.AtimeAttr())},
	} {
		if a.set {
			attrs |= a.attr
		}
	}
	return attrs
}

// addEmptyLayer gives the union an empty layer below its only one: overlayfs wants two where there is no upper layer.
// It is a tmpfs that exists nowhere else.
func addEmptyLayer(fsfd int) error {
	empty, err := detachedTmpfs(unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(empty)
	if err := unix.FsconfigSetFd(fsfd, "lowerdir+", empty); err != nil {
		return fmt.Errorf("add an empty second layer: %w", err)
	}
	return nil
}

func detachedTmpfs(attrs int) (int, error) {
	fsfd, err := fsopen("tmpfs")
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("make a tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount of a tmpfs: %w", err)
	}
	return fd, nil
}

// readLog returns what the kernel has to say of a context: lines like "e overlay: Unknown parameter 'x'", of which the
// letter for the severity and the name are cut off.
func readLog(fsfd int) []string {
	var lines []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fsfd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 { // ENODATA: that was all
			return lines
		}
		line := strings.TrimSpace(string(buf[:n]))
		for _, severity := range []string{"e ", "w ", "i "} {
			line = strings.TrimPrefix(line, severity)
		}
		lines = append(lines, strings.TrimPrefix(line, "overlay: "))
	}
}
