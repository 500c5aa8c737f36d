package ns

import "golang.org/x/sys/unix"

// abis returns the numbers of the calls that [syscallRules] names: those of this machine, and those of the 32-bit programs
// that it also runs (zsysnum_linux_*.go of golang.org/x/sys/unix).
func abis() []abi {
	return []abi{
		{unix.AUDIT_ARCH_AARCH64, map[string]uint32{
			"acct": 89, "add_key": 217, "bpf": 280, "clock_settime": 112, "clone": 220, "clone3": 435,
			"delete_module": 106, "fanotify_init": 262, "finit_module": 273, "fsconfig": 431, "fsmount": 432,
			"fsopen": 430, "fspick": 433, "get_mempolicy": 236, "init_module": 105, "io_uring_enter": 426,
			"io_uring_register": 427, "io_uring_setup": 425, "ioctl": 29, "kcmp": 272, "kexec_file_load": 294,
			"kexec_load": 104, "keyctl": 219, "lookup_dcookie": 18, "mbind": 235, "migrate_pages": 238,
			"mount": 40, "mount_setattr": 442, "move_mount": 429, "move_pages": 239, "nfsservctl": 42,
			"open_by_handle_at": 265, "open_tree": 428, "open_tree_attr": 467, "perf_event_open": 241,
			"personality": 92, "pidfd_getfd": 438, "pivot_root": 41, "process_madvise": 440, "quotactl": 60,
			"quotactl_fd": 443, "reboot": 142, "request_key": 218, "set_mempolicy": 237,
			"set_mempolicy_home_node": 450, "setdomainname": 162, "sethostname": 161, "setns": 268,
			"settimeofday": 170, "socket": 198, "swapoff": 225, "swapon": 224, "syslog": 116, "umount2": 39,
			"unshare": 97, "userfaultfd": 282, "vhangup": 58,
		}},
		{unix.AUDIT_ARCH_ARM, map[string]uint32{
			"_sysctl": 149, "acct": 51, "add_key": 309, "bpf": 386, "clock_settime": 262, "clock_settime64": 404,
			"clone": 120, "clone3": 435, "delete_module": 129, "fanotify_init": 367, "finit_module": 379,
			"fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "get_mempolicy": 320,
			"init_module": 128, "io_uring_enter": 426, "io_uring_register": 427, "io_uring_setup": 425,
			"ioctl": 54, "kcmp": 378, "kexec_file_load": 401, "kexec_load": 347, "keyctl": 311,
			"lookup_dcookie": 249, "mbind": 319, "migrate_pages": 400, "mount": 21, "mount_setattr": 442,
			"move_mount": 429, "move_pages": 344, "nfsservctl": 169, "open_by_handle_at": 371, "open_tree": 428,
			"open_tree_attr": 467, "perf_event_open": 364, "personality": 136, "pidfd_getfd": 438,
			"pivot_root": 218, "process_madvise": 440, "quotactl": 131, "quotactl_fd": 443, "reboot": 88,
			"request_key": 310, "set_mempolicy": 321, "set_mempolicy_home_node": 450, "setdomainname": 121,
			"sethostname": 74, "setns": 375, "settimeofday": 79, "socket": 281, "swapoff": 115, "swapon": 87,
			"sysfs": 135, "syslog": 103, "umount2": 52, "unshare": 337, "uselib": 86, "userfaultfd": 388,
			"ustat": 62, "vhangup": 111,
		}},
	}
}
