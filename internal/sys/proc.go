package sys

import "strconv"

// ProcPath is a path to the object name in dirfd, or to the object that dirfd itself refers to if name is empty,
// for system calls that know no descriptors. The descriptor may be O_PATH. The last step from /proc/self/fd is
// never a symbolic link that the object may be: the kernel jumps to the object itself.
func ProcPath(dirfd int, name string) string {
	p := "/proc/self/fd/" + strconv.Itoa(dirfd)
	if name == "" {
		return p
	}
	return p + "/" + name
}
