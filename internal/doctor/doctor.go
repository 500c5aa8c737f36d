// Package doctor finds out what of unionfsd works on this host, and how to make the rest work.
//
// It tries rather than reads version numbers, as far as that leaves nothing behind: a file system is opened and never
// mounted, namespaces are made for a process that never starts, and what FUSE can do is read from the first message
// that the kernel sends to a server. Kernels are patched, modules are missing, containers forbid; version numbers
// know nothing of it.
package doctor

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Status is how well something works.
type Status string

// The three of them.
const (
	OK   Status = "ok"
	Warn Status = "warn" // something is lost, but not everything
	Fail Status = "fail" // what is named does not work
)

// Check is one line of the report.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`        // what was found
	Fix    string `json:"fix,omitempty"` // what to do about it; empty if all is well
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, fix, format string, args ...any) Check {
	return Check{Name: name, Status: Warn, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(name, fix, format string, args ...any) Check {
	return Check{Name: name, Status: Fail, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// Names of the checks that a backend cannot do without.
const (
	nameOverlay   = "overlay"
	nameFuse      = "fuse"
	nameDevFuse   = "/dev/fuse"
	asRoot        = "run as root, or in a user namespace: unshare -Urm"
	loadedModules = "/proc/filesystems"
)

// Run makes all checks.
func Run() []Check {
	checks := []Check{kernel()}
	checks = append(checks, overlay()...)
	checks = append(checks, fuse()...)
	return append(checks, userNamespaces(), appArmor(), subordinateIDs(), cgroups())
}

// Usable reports whether at least one backend works.
func Usable(checks []Check) bool {
	works := map[string]bool{}
	for _, c := range checks {
		works[c.Name] = c.Status != Fail
	}
	return works[nameOverlay] || works[nameFuse] && works[nameDevFuse]
}

// kernel tells the version. The launcher needs mount_setattr(2), the youngest call that everybody needs.
func kernel() Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail("kernel", "", "uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err == unix.ENOSYS {
		return warn("kernel", "Linux 5.12 or later is needed for containers", "%s", release)
	}
	return ok("kernel", "%s", release)
}

// known reports whether the kernel has a file system, loaded: it may also be a module that is not.
func known(fsType string) bool {
	text, err := os.ReadFile(loadedModules)
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == fsType {
			return true
		}
	}
	return false
}

// openFS begins to configure a file system of some type, and returns the descriptor of that, or the check that tells
// why it cannot be.
func openFS(name, fsType string) (int, *Check) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	var c Check
	switch err {
	case nil:
		return fd, nil
	case unix.ENODEV:
		c = fail(name, "modprobe "+fsType, "the kernel has no file system of type %s", fsType)
	case unix.EPERM:
		c = fail(name, asRoot, "not permitted to mount")
	case unix.ENOSYS:
		c = warn(name, "Linux 5.2 or later has the calls to mount step by step", "only mount(2) can be used")
		if !known(fsType) {
			c = fail(name, "modprobe "+fsType, "the kernel has no file system of type %s", fsType)
		}
	default:
		c = fail(name, "", "fsopen: %v", err)
	}
	return -1, &c
}
