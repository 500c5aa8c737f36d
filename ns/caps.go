package ns

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// capNames are the names of the capabilities, without CAP_, by their numbers (include/uapi/linux/capability.h).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// capSet is a set of capabilities: the bit 1<<N is the capability N.
type capSet uint64

const allCaps capSet = 1<<len(capNames) - 1

// defaultCaps are those that Docker gives (moby, daemon/pkg/oci/caps).
const defaultCaps capSet = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP |
	1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

func (s capSet) has(c int) bool { return s&(1<<c) != 0 }

// capabilities returns the capabilities that the programs may have at most.
func (s Security) capabilities() (capSet, error) {
	add, addAll, err := parseCaps(s.AddCaps)
	if err != nil {
		return 0, err
	}
	drop, dropAll, err := parseCaps(s.DropCaps)
	if err != nil {
		return 0, err
	}
	caps := defaultCaps
	if s.Privileged || addAll {
		caps = allCaps
	}
	if dropAll {
		caps = 0
	}
	return caps&^drop | add, nil
}

// parseCaps returns the capabilities that names stand for, and whether ALL is among them.
func parseCaps(names []string) (set capSet, all bool, err error) {
	for _, name := range names {
		short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		i := slices.Index(capNames[:], short)
		switch {
		case short == "ALL":
			all = true
		case i < 0:
			return 0, false, bad(fmt.Errorf("no capability is called %q", name), "see capabilities(7) for those that there are, or write ALL")
		default:
			set |= 1 << i
		}
	}
	return set, all, nil
}

// String lists the capabilities.
func (s capSet) String() string {
	if s == allCaps {
		return "ALL"
	}
	var names []string
	for i, name := range capNames {
		if s.has(i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// bound takes the capabilities that are not in the set from the bounding set of this thread, and so from every program
// that it starts. Root of the container gets the rest at execve(2), other users nothing.
//
// Preconditions: the goroutine is locked to its thread.
func (s capSet) bound() error {
	for i := range capNames {
		if s.has(i) {
			continue
		}
		// EINVAL: this kernel does not know the capability, so nobody has it.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop CAP_%s: %w", capNames[i], err)
		}
	}
	// Nothing is inherited by programs that are not run by root, nor kept by those that change their user.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
