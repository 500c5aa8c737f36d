// Package cow makes the copy of a lower object that the upper layer gets before its first change: copy-up. [Origins] tell
// later what it is a copy of, and an [Index] keeps the names of a lower file together that has several.
//
// A copy is built in the staging directory and is complete before it is published, so a crash leaves the lower
// object or the whole copy, and nothing that the next mount would not remove. The order of the steps is the
// kernel's (fs/overlayfs/copy_up.c), with one difference: user space cannot change an owner without the system
// clearing set-user-id bits and file capabilities, so the owner comes first.
//
//	step            why here
//	make            a file without a name in work, or a temporary name
//	data            reflink, else by extents; holes stay holes
//	owner           clears suid, sgid and security.capability
//	mode            restores suid and sgid
//	attributes      security.capability is cleared by writing data and by a change of owner; ACLs set the mode too
//	flags           of chattr(1); those that would stop what comes after become a mark
//	origin          which lower object it is a copy of: keeps st_ino the same on the next mount
//	times           every step above changed them; ctime and the time of birth cannot be kept
//	publish         by the caller, who knows whether the name is still the object's
package cow
