package ns

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// verb is what a step does.
type verb string

const (
	verbInit     verb = "init"     // become pid 1: keep no descriptor of the host; not in plans, always done first
	verbPrivate  verb = "private"  // let no mount below propagate to the host, nor from it
	verbAttach   verb = "attach"   // put the root into the file tree, over "/"
	verbMkdir    verb = "mkdir"    // make Path with Mode, unless there is something
	verbMount    verb = "mount"    // mount a new FS with Options and Attr on Path
	verbMknod    verb = "mknod"    // make the character device Path with Mode, Major and Minor
	verbSymlink  verb = "symlink"  // make the symbolic link Path to Target
	verbReadOnly verb = "readonly" // make the root read-only
	verbHostname verb = "hostname" // set the host name to Target
	verbStdio    verb = "stdio"    // replace the host's /dev/null on descriptors 0 to 2 by the container's
	verbPivot    verb = "pivot"    // make the root the root, and detach the old one
	verbVerify   verb = "verify"   // fail unless the mount table holds Mounts and nothing else
	verbChdir    verb = "chdir"    // change the working directory to Path
	verbExec     verb = "exec"     // start Argv with the environment Env; always the last
)

// op is one step of a plan. Paths are absolute, from the container's root, before and after the pivot.
type op struct {
	Verb    verb
	Path    raw      `json:",omitempty"`
	FS      string   `json:",omitempty"`
	Options []string `json:",omitempty"` // of the file system, for fsconfig(2): key or key=value
	Attr    int      `json:",omitempty"` // of the mount, for fsmount(2): MOUNT_ATTR_*
	Mode    uint32   `json:",omitempty"`
	Major   uint32   `json:",omitempty"`
	Minor   uint32   `json:",omitempty"`
	Target  raw      `json:",omitempty"`
	Mounts  []raw    `json:",omitempty"`
	Argv    []raw    `json:",omitempty"`
	Env     []raw    `json:",omitempty"`
}

// plan returns the steps from cloned namespaces to a running program. It depends on cfg alone.
func plan(cfg Config) []op {
	ops := []op{{Verb: verbPrivate}, {Verb: verbAttach}}
	if !cfg.RequireMountPoints {
		for _, dir := range MountPoints() {
			ops = append(ops, op{Verb: verbMkdir, Path: raw("/" + dir), Mode: 0o755})
		}
	}
	const noAll = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	ops = append(ops,
		op{Verb: verbMount, FS: "proc", Path: "/proc", Attr: noAll},
		// Read-only as a mount, not as a file system: the instance of sysfs is the one of the host's network.
		op{Verb: verbMount, FS: "sysfs", Path: "/sys", Attr: noAll | unix.MOUNT_ATTR_RDONLY},
		op{Verb: verbMount, FS: "tmpfs", Path: "/dev", Options: []string{"mode=0755"}, Attr: unix.MOUNT_ATTR_NOSUID})
	ops = append(ops, planDev()...)
	for _, dir := range cfg.Mask {
		ops = append(ops, op{Verb: verbMount, FS: "tmpfs", Path: raw(path.Clean(dir)), Options: []string{"mode=0755"},
			Attr: noAll | unix.MOUNT_ATTR_RDONLY})
	}
	if cfg.ReadOnly {
		ops = append(ops, op{Verb: verbReadOnly})
	}
	if cfg.Hostname != "" {
		ops = append(ops, op{Verb: verbHostname, Target: raw(cfg.Hostname)})
	}
	ops = append(ops, op{Verb: verbStdio}, op{Verb: verbPivot})
	ops = append(ops, op{Verb: verbVerify, Mounts: mounted(ops)})
	dir := cfg.Dir
	if dir == "" {
		dir = "/"
	}
	return append(ops,
		op{Verb: verbChdir, Path: raw(dir)},
		op{Verb: verbExec, Argv: toRaw(cfg.Argv), Env: toRaw(cfg.Env)})
}

// planDev fills the tmpfs on /dev with what programs take for granted, and no device of this host.
func planDev() []op {
	var ops []op
	for _, dev := range []struct {
		name         string
		major, minor uint32 // Documentation/admin-guide/devices.txt
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	} {
		ops = append(ops, op{Verb: verbMknod, Path: raw("/dev/" + dev.name), Mode: 0o666, Major: dev.major, Minor: dev.minor})
	}
	for _, link := range [][2]raw{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
		{"/dev/ptmx", "pts/ptmx"},
	} {
		ops = append(ops, op{Verb: verbSymlink, Path: link[0], Target: link[1]})
	}
	const noSuidExec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	for _, m := range []op{
		// gid 5 is tty in every distribution: terminals belong to it, so that write(1) works.
		{Path: "/dev/pts", FS: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}, Attr: noSuidExec},
		{Path: "/dev/shm", FS: "tmpfs", Options: []string{"mode=1777"}, Attr: noSuidExec | unix.MOUNT_ATTR_NODEV},
		{Path: "/dev/mqueue", FS: "mqueue", Attr: noSuidExec | unix.MOUNT_ATTR_NODEV},
	} {
		m.Verb = verbMount
		ops = append(ops, op{Verb: verbMkdir, Path: m.Path, Mode: 0o755}, m)
	}
	return ops
}

// mounted returns the mount points that ops leave behind, sorted.
func mounted(ops []op) []raw {
	list := []raw{"/"}
	for _, o := range ops {
		if o.Verb == verbMount {
			list = append(list, o.Path)
		}
	}
	slices.Sort(list)
	return list
}

// String returns the step as one line, with all its parameters but the environment.
func (o op) String() string {
	switch o.Verb {
	case verbMkdir:
		return fmt.Sprintf("%s (%04o)", o.name(), o.Mode)
	case verbMount:
		return fmt.Sprintf("%s (%s)", o.name(), strings.Join(append(attrNames(o.Attr), o.Options...), ","))
	case verbMknod:
		return fmt.Sprintf("%s (c %d:%d, %04o)", o.name(), o.Major, o.Minor, o.Mode)
	case verbSymlink:
		return fmt.Sprintf("%s -> %s", o.name(), o.Target)
	case verbVerify:
		return fmt.Sprintf("%s: %s", o.name(), strings.Join(fromRaw(o.Mounts), " "))
	case verbExec:
		return fmt.Sprintf("exec %q", fromRaw(o.Argv))
	}
	return o.name()
}

// name says in a few words what the step does, for messages.
func (o op) name() string {
	switch o.Verb {
	case verbInit:
		return "set up pid 1"
	case verbPrivate:
		return "make all mounts private"
	case verbAttach:
		return "attach the root"
	case verbMount:
		return fmt.Sprintf("mount %s on %s", o.FS, o.Path)
	case verbReadOnly:
		return "make the root read-only"
	case verbHostname:
		return "set host name " + string(o.Target)
	case verbStdio:
		return "reopen /dev/null"
	case verbPivot:
		return "pivot into the root"
	case verbVerify:
		return "verify the mount table"
	case verbExec:
		return "exec " + string(o.Argv[0])
	}
	return fmt.Sprintf("%s %s", o.Verb, o.Path)
}

// attrNames returns the mount options that MOUNT_ATTR_* bits stand for.
func attrNames(attr int) []string {
	var names []string
	for _, a := range []struct {
		bit  int
		name string
	}{
		{unix.MOUNT_ATTR_RDONLY, "ro"}, {unix.MOUNT_ATTR_NOSUID, "nosuid"},
		{unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"},
	} {
		if attr&a.bit != 0 {
			names = append(names, a.name)
		}
	}
	return names
}
