package ns

import "golang.org/x/sys/unix"

// abis returns the numbers of the calls that [syscallRules] names: those of this machine, and those of the 32-bit programs
// that it also runs (zsysnum_linux_*.go of golang.org/x/sys/unix).
func abis() []abi {
	return []abi{
		{unix.AUDIT_ARCH_X86_64, map[string]uint32{
			"_sysctl": 156, "acct": 163, "add_key": 248, "bpf": 321, "clock_settime": 227, "clone": 56,
			"clone3": 435, "create_module": 174, "delete_module": 176, "fanotify_init": 300, "finit_module": 313,
			"fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "get_kernel_syms": 177,
			"get_mempolicy": 239, "init_module": 175, "io_uring_enter": 426, "io_uring_register": 427,
			"io_uring_setup": 425, "ioctl": 16, "ioperm": 173, "iopl": 172, "kcmp": 312, "kexec_file_load": 320,
			"kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "mbind": 237, "migrate_pages": 256,
			"mount": 165, "mount_setattr": 442, "move_mount": 429, "move_pages": 279, "nfsservctl": 180,
			"open_by_handle_at": 304, "open_tree": 428, "open_tree_attr": 467, "perf_event_open": 298,
			"personality": 135, "pidfd_getfd": 438, "pivot_root": 155, "process_madvise": 440,
			"query_module": 178, "quotactl": 179, "quotactl_fd": 443, "reboot": 169, "request_key": 249,
			"set_mempolicy": 238, "set_mempolicy_home_node": 450, "setdomainname": 171, "sethostname": 170,
			"setns": 308, "settimeofday": 164, "socket": 41, "swapoff": 168, "swapon": 167, "sysfs": 139,
			"syslog": 103, "umount2": 166, "unshare": 272, "uselib": 134, "userfaultfd": 323, "ustat": 136,
			"vhangup": 153,
		}},
		{unix.AUDIT_ARCH_I386, map[string]uint32{
			"_sysctl": 149, "acct": 51, "add_key": 286, "bpf": 357, "clock_settime": 264, "clock_settime64": 404,
			"clone": 120, "clone3": 435, "create_module": 127, "delete_module": 129, "fanotify_init": 338,
			"finit_module": 350, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433,
			"get_kernel_syms": 130, "get_mempolicy": 275, "init_module": 128, "io_uring_enter": 426,
			"io_uring_register": 427, "io_uring_setup": 425, "ioctl": 54, "ioperm": 101, "iopl": 110,
			"kcmp": 349, "kexec_load": 283, "keyctl": 288, "lookup_dcookie": 253, "mbind": 274,
			"migrate_pages": 294, "mount": 21, "mount_setattr": 442, "move_mount": 429, "move_pages": 317,
			"nfsservctl": 169, "open_by_handle_at": 342, "open_tree": 428, "open_tree_attr": 467,
			"perf_event_open": 336, "personality": 136, "pidfd_getfd": 438, "pivot_root": 217,
			"process_madvise": 440, "query_module": 167, "quotactl": 131, "quotactl_fd": 443, "reboot": 88,
			"request_key": 287, "set_mempolicy": 276, "set_mempolicy_home_node": 450, "setdomainname": 121,
			"sethostname": 74, "setns": 346, "settimeofday": 79, "socket": 359, "stime": 25, "swapoff": 115,
			"swapon": 87, "sysfs": 135, "syslog": 103, "umount": 22, "umount2": 52, "unshare": 310, "uselib": 86,
			"userfaultfd": 374, "ustat": 62, "vhangup": 111, "vm86": 166, "vm86old": 113,
		}},
	}
}
