// Package mounttest is the suite that every [mount.Backend] passes.
//
// What it expects is what Linux overlayfs does with all its features off (index, metacopy, redirect_dir, xino):
// the kernel is the oracle, and a check that fails on the kernel is a wrong check. What can not be the same on a
// FUSE file system (f_type, st_dev, the source in /proc/mounts) is not looked at.
//
// A package that has a backend runs the suite like this:
//
//	var server = mounttest.NewServer(overlayfs.Backend{})
//
//	func TestMain(m *testing.M) { testfs.Main(m) }
//
//	func TestSuite(t *testing.T) { mounttest.Run(t, server) }
//
// # Processes
//
// A process that serves a file system must not use it: one of its threads may wait in the kernel for another that
// the runtime has stopped. So each union is opened and served in a child process ([Server.Mount]), and the
// operations are done in the test's. A union that does not answer is cut off: its server is killed, all that wait
// for it get an error, and the test fails.
//
// # Checks
//
// A check gets a [union] with nothing mounted, says which trees its layers hold and mounts it, and then does
// operations and compares results, the merged tree, and what is in the upper layer on disk. In the end, whatever
// the check was about, the lower layers must be as they were made, the work directory empty and the union
// unmounted; see [union.finish].
package mounttest
