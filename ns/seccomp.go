package ns

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter of system calls (seccomp(2)) denies what no program in a container has a use for, and what has been a way
// out of containers: the calls that Docker's default profile leaves out (moby, profiles/seccomp). All others are
// allowed, so a new call of the kernel is. Those that a capability is for are allowed to who has it.

// rule denies one system call.
type rule struct {
	call   string
	unless capSet      // any of these capabilities lifts it
	errno  unix.Errno  // EPERM if 0
	when   []condition // any of these must hold; none: always
}

// condition is about the lower 32 bits of an argument.
type condition struct {
	arg    uint32
	test   test
	value  uint32
	others []uint32 // for notIn
}

type test uint16

// Tests of a condition.
const (
	equal  = unix.BPF_JEQ
	anyBit = unix.BPF_JSET
	notIn  = 0xffff
)

func syscallRules() []rule {
	const (
		admin  capSet = 1 << unix.CAP_SYS_ADMIN
		ptrace capSet = 1 << unix.CAP_SYS_PTRACE
		module capSet = 1 << unix.CAP_SYS_MODULE
		time   capSet = 1 << unix.CAP_SYS_TIME
		nice   capSet = 1 << unix.CAP_SYS_NICE
		rawio  capSet = 1 << unix.CAP_SYS_RAWIO
	)
	var rules []rule
	deny := func(unless capSet, calls ...string) {
		for _, c := range calls {
			rules = append(rules, rule{call: c, unless: unless})
		}
	}
	deny(admin, "mount", "umount", "umount2", "setns", "unshare", "quotactl", "quotactl_fd", "lookup_dcookie", "fanotify_init",
		"sethostname", "setdomainname",
		"fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr", "mount_setattr")
	deny(admin|1<<unix.CAP_BPF, "bpf")
	deny(admin|1<<unix.CAP_PERFMON, "perf_event_open")
	deny(admin|1<<unix.CAP_SYSLOG, "syslog")
	deny(ptrace, "kcmp", "pidfd_getfd", "process_madvise")
	deny(module, "init_module", "finit_module", "delete_module", "create_module", "get_kernel_syms", "query_module")
	deny(time, "settimeofday", "stime", "clock_settime", "clock_settime64")
	deny(nice, "mbind", "get_mempolicy", "set_mempolicy", "set_mempolicy_home_node", "migrate_pages", "move_pages")
	deny(rawio, "iopl", "ioperm")
	deny(1<<unix.CAP_SYS_BOOT, "reboot", "kexec_load", "kexec_file_load")
	deny(1<<unix.CAP_SYS_PACCT, "acct")
	deny(1<<unix.CAP_SYS_TTY_CONFIG, "vhangup")
	deny(1<<unix.CAP_DAC_READ_SEARCH, "open_by_handle_at")
	deny(0, "add_key", "request_key", "keyctl", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
		"pivot_root", "swapon", "swapoff", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old")

	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	const afALG, afVSOCK = 38, 40
	const tiocLinux = 0x541c // TIOCLINUX pastes, TIOCSTI types, into a terminal that is the host's
	return append(rules,
		rule{call: "clone", unless: admin, when: []condition{{arg: 0, test: anyBit, value: namespaces}}},
		// The flags of clone3 are in memory, where a filter cannot look; on ENOSYS libraries use clone.
		rule{call: "clone3", unless: admin, errno: unix.ENOSYS},
		rule{call: "ioctl", when: []condition{{arg: 1, test: equal, value: unix.TIOCSTI}, {arg: 1, test: equal, value: tiocLinux}}},
		rule{call: "socket", when: []condition{{arg: 0, test: equal, value: afALG}, {arg: 0, test: equal, value: afVSOCK}}},
		// PER_LINUX, PER_LINUX32, each with UNAME26, and the question.
		rule{call: "personality", when: []condition{{arg: 0, test: notIn, others: []uint32{0, 8, 0x20000, 0x20008, 0xffffffff}}}},
	)
}

// abi is a set of system call numbers that a program may use on this machine.
type abi struct {
	audit   uint32 // AUDIT_ARCH_*
	numbers map[string]uint32
}

// Offsets in struct seccomp_data, and the bit that marks the x32 ABI on amd64.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArgs = 16
	x32Bit     = 0x40000000
)

// syscallFilter returns the program of the filter for who has the capabilities caps.
func syscallFilter(caps capSet) []unix.SockFilter {
	p := []unix.SockFilter{load(offsetArch)}
	for _, a := range abis() {
		part := a.filter(caps)
		// A conditional jump leads 255 instructions far, and this one may have to lead farther.
		p = append(p, jump(unix.BPF_JEQ, a.audit, 1, 0),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(part))})
		p = append(p, part...)
	}
	return append(p, refuse(unix.ENOSYS)) // numbers that we do not know
}

func (a abi) filter(caps capSet) []unix.SockFilter {
	p := []unix.SockFilter{load(offsetCall)}
	if a.audit == unix.AUDIT_ARCH_X86_64 {
		p = append(p, jump(unix.BPF_JSET, x32Bit, 0, 1), refuse(unix.ENOSYS))
	}
	for _, r := range syscallRules() {
		number, ok := a.numbers[r.call]
		if !ok || r.unless&caps != 0 {
			continue
		}
		errno := r.errno
		if errno == 0 {
			errno = unix.EPERM
		}
		if len(r.when) == 0 {
			p = append(p, jump(unix.BPF_JEQ, number, 0, 1), refuse(errno))
			continue
		}
		var body []unix.SockFilter
		for _, c := range r.when {
			body = append(body, c.filter(errno)...)
		}
		body = append(body, load(offsetCall))
		p = append(p, jump(unix.BPF_JEQ, number, 0, uint8(len(body))))
		p = append(p, body...)
	}
	return append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

// filter returns from the program if the condition holds.
func (c condition) filter(errno unix.Errno) []unix.SockFilter {
	p := []unix.SockFilter{load(offsetArgs + 8*c.arg)} // the lower half comes first: both of our machines are little-endian
	if c.test != notIn {
		return append(p, jump(uint16(c.test), c.value, 0, 1), refuse(errno))
	}
	for i, v := range c.others {
		p = append(p, jump(unix.BPF_JEQ, v, uint8(len(c.others)-i), 0))
	}
	return append(p, refuse(errno))
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(how uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func refuse(errno unix.Errno) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// install makes the filter hold for this thread and all that it starts. It needs no_new_privs or CAP_SYS_ADMIN.
//
// Preconditions: the goroutine is locked to its thread.
func install(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
