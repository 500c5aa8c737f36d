package ns

import (
	"cmp"
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
	verbDevice   verb = "device"   // bind the host's character device Path, which must have Major and Minor
	verbSymlink  verb = "symlink"  // make the symbolic link Path to Target
	verbHostTree verb = "hosttree" // bind the host's Path, with all that is mounted below it, on Path, with Attr
	verbBind     verb = "bind"     // attach the Index-th detached mount that the supervisor sent to Path, with Attr
	verbTmpfs    verb = "tmpfs"    // as mount, but what is missing of Path is made, and links in it are followed
	verbMask     verb = "mask"     // hide Path, a file or a directory, if it exists; a part of it may be "*"
	verbReadOnly verb = "readonly" // make Path read-only, if it exists
	verbLoopback verb = "loopback" // switch the loopback interface on
	verbHostname verb = "hostname" // set the host name to Target
	verbStdio    verb = "stdio"    // replace the host's /dev/null on descriptors 0 to 2 by the container's
	verbPivot    verb = "pivot"    // make the root the root, and detach the old one
	verbConsole  verb = "console"  // make the program's terminal, and show it as Path
	verbVerify   verb = "verify"   // fail unless the mount table holds the mounts of these steps and nothing else
	verbLimit    verb = "limit"    // set a resource limit, for all that init starts

	// Those with which a process starts; see spawn.
	verbTerminal verb = "terminal" // make a terminal
	verbUser     verb = "user"     // find Target in /etc/passwd and /etc/group
	verbChdir    verb = "chdir"    // change the working directory to Path
	verbConfine  verb = "confine"  // drop capabilities, filter system calls
	verbExec     verb = "exec"     // start the program Target
)

// op is one step of a plan. Paths are absolute, from the container's root, before and after the pivot.
type op struct {
	Verb      verb
	Path      raw      `json:",omitempty"`
	FS        string   `json:",omitempty"`
	Options   []string `json:",omitempty"` // of the file system, for fsconfig(2): key or key=value
	Attr      int      `json:",omitempty"` // of the mount, for fsmount(2): MOUNT_ATTR_*
	Mode      uint32   `json:",omitempty"`
	Major     uint32   `json:",omitempty"`
	Minor     uint32   `json:",omitempty"`
	Target    raw      `json:",omitempty"`
	Index     int      `json:",omitempty"`
	Recursive bool     `json:",omitempty"`
	Limit     *Limit   `json:",omitempty"`
}

const (
	noAll      = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	noSuidExec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// What of /proc and /sys tells about the host, or changes it: the lists of Docker (moby, daemon/pkg/oci/defaults.go).
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/system/cpu/*/thermal_throttle", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// plan returns the steps from cloned namespaces to a root that is ready for programs. It depends on cfg alone.
func plan(cfg Config) []op {
	ops := []op{{Verb: verbPrivate}, {Verb: verbAttach}}
	if !cfg.RequireMountPoints {
		for _, dir := range MountPoints() {
			ops = append(ops, op{Verb: verbMkdir, Path: raw("/" + dir), Mode: 0o755})
		}
	}
	ops = append(ops, op{Verb: verbMount, FS: "proc", Path: "/proc", Attr: noAll}, planSys(cfg),
		op{Verb: verbMount, FS: "tmpfs", Path: "/dev", Options: []string{"mode=0755"}, Attr: unix.MOUNT_ATTR_NOSUID})
	ops = append(ops, planDev(cfg.nested())...)
	ops = append(ops, planMounts(cfg.Mounts)...)
	for _, dir := range cfg.Mask {
		ops = append(ops, op{Verb: verbMount, FS: "tmpfs", Path: raw(path.Clean(dir)), Options: []string{"mode=0755"},
			Attr: noAll | unix.MOUNT_ATTR_RDONLY})
	}
	if !cfg.Unmasked && !cfg.Privileged {
		for _, p := range maskedPaths {
			ops = append(ops, op{Verb: verbMask, Path: raw(p)})
		}
		for _, p := range readOnlyPaths {
			ops = append(ops, op{Verb: verbReadOnly, Path: raw(p)})
		}
	}
	if cfg.ReadOnly {
		ops = append(ops, op{Verb: verbReadOnly, Path: "/"})
	}
	if cfg.PrivateNetwork {
		ops = append(ops, op{Verb: verbLoopback})
	}
	if cfg.Hostname != "" {
		ops = append(ops, op{Verb: verbHostname, Target: raw(cfg.Hostname)})
	}
	ops = append(ops, op{Verb: verbStdio}, op{Verb: verbPivot})
	if cfg.Terminal {
		ops = append(ops, op{Verb: verbConsole, Path: "/dev/console"})
	}
	ops = append(ops, op{Verb: verbVerify})
	for _, l := range cfg.Limits {
		ops = append(ops, op{Verb: verbLimit, Limit: &l})
	}
	return ops
}

// planSys shows the devices of the host, read-only.
func planSys(cfg Config) op {
	attr := noAll | unix.MOUNT_ATTR_RDONLY
	if cfg.Unmasked || cfg.Privileged {
		attr = noAll
	}
	if cfg.nested() && !cfg.PrivateNetwork {
		// An instance of sysfs belongs to a network, and takes privileges over that.
		return op{Verb: verbHostTree, Path: "/sys", Attr: attr, Recursive: true}
	}
	// Read-only as a mount, not as a file system: the instance of sysfs may be the one of the host's network.
	return op{Verb: verbMount, FS: "sysfs", Path: "/sys", Attr: attr}
}

// planDev fills the tmpfs on /dev with what programs take for granted, and no device of this host.
func planDev(nested bool) []op {
	var ops []op
	make := verbMknod
	if nested {
		make = verbDevice // nobody may make devices there
	}
	for _, dev := range []struct {
		name         string
		major, minor uint32 // Documentation/admin-guide/devices.txt
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	} {
		ops = append(ops, op{Verb: make, Path: raw("/dev/" + dev.name), Mode: 0o666, Major: dev.major, Minor: dev.minor})
	}
	for _, link := range [][2]raw{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
		{"/dev/ptmx", "pts/ptmx"},
	} {
		ops = append(ops, op{Verb: verbSymlink, Path: link[0], Target: link[1]})
	}
	pts := []string{"newinstance", "ptmxmode=0666", "mode=0620"}
	if !nested {
		// 5 is tty in every distribution: terminals belong to it, so that write(1) works. It may not be mapped.
		pts = append(pts, "gid=5")
	}
	for _, m := range []op{
		{Path: "/dev/pts", FS: "devpts", Options: pts, Attr: noSuidExec},
		{Path: "/dev/shm", FS: "tmpfs", Options: []string{"mode=1777"}, Attr: noSuidExec | unix.MOUNT_ATTR_NODEV},
		{Path: "/dev/mqueue", FS: "mqueue", Attr: noSuidExec | unix.MOUNT_ATTR_NODEV},
	} {
		m.Verb = verbMount
		ops = append(ops, op{Verb: verbMkdir, Path: m.Path, Mode: 0o755}, m)
	}
	return ops
}

// planMounts mounts what the user asked for, a directory before what is below it.
func planMounts(mounts []Mount) []op {
	var ops []op
	index := 0
	for _, m := range mounts {
		o := op{Verb: verbTmpfs, Path: raw(path.Clean(m.Path)), FS: m.FS, Options: m.Options, Attr: m.Attr}
		if m.FS == "" {
			o.Verb, o.Index, o.Recursive = verbBind, index, m.Recursive
			index++
		}
		ops = append(ops, o)
	}
	slices.SortStableFunc(ops, func(a, b op) int {
		return cmp.Compare(strings.Count(string(a.Path), "/"), strings.Count(string(b.Path), "/"))
	})
	return ops
}
