package ns

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// executor does the steps of a plan, in the namespaces of the container.
type executor struct {
	root  int   // the root mount
	binds []int // what verbBind attaches

	terminal *terminal // of the program, if it has one

	empty int // an empty file system, for directories that are masked; -1 before the first
	// What was mounted, by id; true if others may have been mounted below it before.
	mounted map[uint64]bool
}

func newExecutor(binds int) *executor {
	x := &executor{root: rootFD, empty: -1, mounted: map[uint64]bool{}}
	for i := range binds {
		x.binds = append(x.binds, bindFD+i)
	}
	return x
}

// close closes the descriptors of the host's that the steps needed.
func (x *executor) close() {
	for _, fd := range append(x.binds, x.root, x.empty) {
		unix.Close(fd)
	}
}

// do does one step.
func (x *executor) do(o op) error {
	name := string(o.Path)
	switch o.Verb {
	case verbPrivate:
		return makePrivate()
	case verbAttach:
		if err := attach(x.root); err != nil {
			return err
		}
		return x.note(x.root, false)
	case verbMkdir:
		return mkdir(x.root, name, o.Mode)
	case verbMount:
		return x.mount(name, o.FS, o.Options, o.Attr)
	case verbMknod:
		return mknod(x.root, name, o.Mode, unix.Mkdev(o.Major, o.Minor))
	case verbDevice:
		return x.device(name, unix.Mkdev(o.Major, o.Minor))
	case verbSymlink:
		return symlink(x.root, name, string(o.Target))
	case verbHostTree:
		return x.hostTree(name, o.Attr)
	case verbBind:
		return x.bind(x.binds[o.Index], name, o.Attr, o.Recursive)
	case verbTmpfs:
		return x.tmpfs(name, o.FS, o.Options, o.Attr)
	case verbMask:
		return x.maskAll(name)
	case verbReadOnly:
		return x.readOnly(name)
	case verbLoopback:
		return loopback()
	case verbHostname:
		return unix.Sethostname([]byte(o.Target))
	case verbStdio:
		return x.stdio()
	case verbPivot:
		return pivot(x.root)
	case verbConsole:
		return x.console(name)
	case verbVerify:
		return x.verify()
	case verbLimit:
		return syscall.Setrlimit(o.Limit.Resource, &syscall.Rlimit{Cur: o.Limit.Soft, Max: o.Limit.Hard})
	}
	return fmt.Errorf("unknown step %q", o.Verb)
}

// note remembers the mount mnt for verify.
func (x *executor) note(mnt int, recursive bool) error {
	id, err := sys.MountID(mnt)
	x.mounted[id] = recursive
	return err
}

// put attaches the detached mount mnt to the file or directory target.
func (x *executor) put(mnt, target int, name string, recursive bool) error {
	err := unix.MoveMount(mnt, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err == nil {
		err = x.note(mnt, recursive)
	}
	return pathError("move_mount", name, err)
}

// mount makes a file system with its options and mounts it on the directory name with the attributes attr.
func (x *executor) mount(name, fsName string, options []string, attr int) error {
	target, err := open(x.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	mnt, err := sys.NewMount(fsName, options, attr)
	if err != nil {
		return pathError("mount", name, err)
	}
	defer unix.Close(mnt)
	return x.put(mnt, target, name, false)
}

// tmpfs is mount on a directory that the user has chosen.
func (x *executor) tmpfs(name, fsName string, options []string, attr int) error {
	target, err := makeTarget(x.root, name, true)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	mnt, err := sys.NewMount(fsName, options, attr)
	if err != nil {
		return pathError("mount", name, err)
	}
	defer unix.Close(mnt)
	return x.put(mnt, target, name, false)
}

// bind attaches the detached mount mnt, of a directory or a file, to name.
func (x *executor) bind(mnt int, name string, attr int, recursive bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(mnt, &st); err != nil {
		return pathError("stat", name, err)
	}
	target, err := makeTarget(x.root, name, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := setAttr(mnt, attr, recursive); err != nil {
		return pathError("mount_setattr", name, err)
	}
	return x.put(mnt, target, name, recursive)
}

// hostTree shows a directory of the host and what is mounted below it.
func (x *executor) hostTree(name string, attr int) error {
	mnt, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return pathError("open_tree", name, err)
	}
	defer unix.Close(mnt)
	target, err := open(x.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := setAttr(mnt, attr, true); err != nil {
		return pathError("mount_setattr", name, err)
	}
	return x.put(mnt, target, name, true)
}

// device shows a device of the host, if it is what it should be, under the same name.
func (x *executor) device(name string, dev uint64) error {
	mnt, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return pathError("open_tree", name, err)
	}
	defer unix.Close(mnt)
	if !isDevice(mnt, dev) {
		return pathError("open_tree", name, errors.New("the host's is another device"))
	}
	target, err := makeTarget(x.root, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return x.put(mnt, target, name, false)
}

// maskAll masks name, whose "*" stands for whatever is there.
func (x *executor) maskAll(name string) error {
	before, after, star := strings.Cut(name, "*")
	if !star {
		return x.mask(name)
	}
	dir, err := open(x.root, path.Clean(before), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := listDir(dir)
	if err != nil {
		return pathError("read", before, err)
	}
	for _, n := range names {
		if err := x.mask(before + n + after); err != nil {
			return err
		}
	}
	return nil
}

// mask covers a directory by an empty one, and anything else by the container's /dev/null.
func (x *executor) mask(name string) error {
	target, err := open(x.root, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // the kernel has no such thing; nor has it symbolic links at the places that we mask
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return pathError("stat", name, err)
	}
	source := x.empty
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if source, err = openNull(x.root, unix.O_PATH); err != nil {
			return err
		}
		defer unix.Close(source)
	} else if x.empty < 0 {
		if x.empty, err = sys.NewMount("tmpfs", []string{"mode=0755"}, noAll|unix.MOUNT_ATTR_RDONLY); err != nil {
			return pathError("mount", name, err)
		}
		source = x.empty
	}
	mnt, err := unix.OpenTree(source, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return pathError("open_tree", name, err)
	}
	defer unix.Close(mnt)
	return x.put(mnt, target, name, false)
}

// readOnly covers name by itself, with all that is mounted below it, read-only. The root mount becomes read-only, but
// not what is mounted below.
func (x *executor) readOnly(name string) error {
	if name == "/" {
		return pathError("mount_setattr", "/", setAttr(x.root, unix.MOUNT_ATTR_RDONLY, false))
	}
	target, err := open(x.root, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	mnt, err := unix.OpenTree(target, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return pathError("open_tree", name, err)
	}
	defer unix.Close(mnt)
	if err := setAttr(mnt, unix.MOUNT_ATTR_RDONLY, true); err != nil {
		return pathError("mount_setattr", name, err)
	}
	return x.put(mnt, target, name, true)
}

// stdio replaces those of the descriptors 0 to 2 that are the host's /dev/null by the container's. Who holds one of
// the host's could change its mode or owner through it.
func (x *executor) stdio() error {
	for fd := range 3 {
		if err := containNull(x.root, fd); err != nil {
			return err
		}
	}
	return nil
}

// console makes the terminal of the program and shows it under another name, where some look for the terminal of the system.
// It must not be what is in /dev/pts by name, which could be another one: see openTerminalPair.
func (x *executor) console(name string) error {
	var err error
	if x.terminal, err = openTerminalPair(); err != nil {
		return err
	}
	mnt, err := unix.OpenTree(int(x.terminal.program.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return pathError("open_tree", name, err)
	}
	defer unix.Close(mnt)
	target, err := makeTarget(x.root, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return x.put(mnt, target, name, false)
}

// verify fails unless all the mounts that can be reached from the root were mounted by steps of the plan, or came with
// one that they are mounted below. An old root that was not detached is found so.
func (x *executor) verify() error {
	entries, err := mountinfo.Read()
	if err != nil {
		return err
	}
	ours := map[string]bool{} // by id; true if others may be mounted on it
	for id, recursive := range x.mounted {
		ours[strconv.FormatUint(id, 10)] = recursive
	}
	for _, e := range entries { // parents come before their children
		if _, ok := ours[e.ID]; ok {
			continue
		}
		if !ours[e.Parent] {
			return fmt.Errorf("something else is mounted on %s: %s of type %s", e.MountPoint, e.Source, e.FSType)
		}
		ours[e.ID] = true
	}
	return nil
}
