package doctor

import (
	"golang.org/x/sys/unix"
)

// overlay looks at the kernel's overlayfs by configuring one that is never made.
func overlay() []Check {
	fd, problem := openFS(nameOverlay, "overlay")
	if problem != nil {
		return []Check{*problem}
	}
	defer unix.Close(fd)
	return []Check{
		ok(nameOverlay, "can be mounted"),
		layerOptions(fd),
		userXattr(fd),
	}
}

// layerOptions tells how layers can be given to overlayfs: one by one since Linux 6.7, as descriptors since 6.13.
func layerOptions(fd int) Check {
	const name = "overlay layers"
	if err := unix.FsconfigSetString(fd, "lowerdir+", "/"); err != nil {
		return warn(name, "Linux 6.7 or later takes 500", "only as one text of at most 4096 bytes")
	}
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return warn(name, "", "open /: %v", err)
	}
	defer unix.Close(dir)
	if err := unix.FsconfigSetFd(fd, "lowerdir+", dir); err != nil {
		return ok(name, "one by one, as paths")
	}
	return ok(name, "one by one, as descriptors")
}

// userXattr tells whether marks can be user.overlay.*, which is what a user namespace may write.
func userXattr(fd int) Check {
	const name = "userxattr"
	if err := unix.FsconfigSetFlag(fd, "userxattr"); err != nil {
		return warn(name, "Linux 5.11 or later has it; use --backend fuse for unions in user namespaces", "not in this kernel")
	}
	return ok(name, "overlay can be mounted in a user namespace")
}
