// Package sys holds the system calls that the packages above need and x/sys/unix does not give in the form that
// they need: directory entries without copies, extended attributes of an object named by descriptor and name,
// file data copied by extents, file handles, mounts as descriptors, and acting as the caller of a request.
//
// All that a union does to its layers comes through here, so that tests can make any of it fail: see [Inject].
//
// Everything takes descriptors and single names. Errors are bare errnos (syscall.Errno): whoever knows the name
// wraps them.
package sys
