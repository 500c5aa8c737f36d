package ns

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// String returns the step as one line, with all its parameters.
func (o op) String() string {
	switch o.Verb {
	case verbMkdir:
		return fmt.Sprintf("%s (%04o)", o.name(), o.Mode)
	case verbMount, verbTmpfs:
		return fmt.Sprintf("%s (%s)", o.name(), strings.Join(append(attrNames(o.Attr), o.Options...), ","))
	case verbBind, verbHostTree:
		names := attrNames(o.Attr)
		if o.Recursive {
			names = append(names, "recursive")
		}
		return fmt.Sprintf("%s (%s)", o.name(), strings.Join(names, ","))
	case verbMknod, verbDevice:
		return fmt.Sprintf("%s (c %d:%d, %04o)", o.name(), o.Major, o.Minor, o.Mode)
	case verbSymlink:
		return fmt.Sprintf("%s -> %s", o.name(), o.Target)
	case verbLimit:
		return fmt.Sprintf("%s to %d, %d", o.name(), o.Limit.Soft, o.Limit.Hard)
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
	case verbMount, verbTmpfs:
		return fmt.Sprintf("mount %s on %s", o.FS, o.Path)
	case verbBind:
		return fmt.Sprintf("mount %d on %s", o.Index, o.Path)
	case verbHostTree, verbDevice:
		return fmt.Sprintf("bind the host's %s", o.Path)
	case verbReadOnly:
		if o.Path == "/" {
			return "make the root read-only"
		}
		return fmt.Sprintf("make %s read-only", o.Path)
	case verbLoopback:
		return "switch the loopback interface on"
	case verbHostname:
		return "set host name " + string(o.Target)
	case verbStdio:
		return "reopen /dev/null"
	case verbPivot:
		return "pivot into the root"
	case verbConsole:
		return fmt.Sprintf("make a terminal and show it as %s", o.Path)
	case verbVerify:
		return "verify the mount table"
	case verbLimit:
		return fmt.Sprintf("limit resource %d", o.Limit.Resource)
	case verbTerminal:
		return "make a terminal"
	case verbConfine:
		return "confine the program"
	case verbUser, verbExec:
		return fmt.Sprintf("%s %s", o.Verb, o.Target)
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
