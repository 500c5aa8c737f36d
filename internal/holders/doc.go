// Package holders finds who uses a file system: the processes that would keep it busy if it were unmounted, and the
// mounts that would keep it alive.
//
// It reads /proc and asks the kernel, never the file system: that may hang, or be served by the process that asks.
// What belongs to processes that the caller may not look into (ptrace(2), "Ptrace access mode checking") is not found.
package holders
