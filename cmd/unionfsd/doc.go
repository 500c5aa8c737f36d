// Unionfsd stacks directory trees and runs programs in them. Run it with --help for its commands.
//
// # Model
//
// One binary is three programs, told apart by the name it was started under (see dispatch):
//
//   - unionfsd itself: parse, check, do one thing, say what failed in one line;
//   - unionfsd-daemon: serves one mounted union until it is unmounted (daemon.go);
//   - the init of a container, which package ns starts and runs.
//
// unionfsd itself takes its arguments in two forms: commands (root.go), and the one that mount(8) and container
// engines use for helpers (helper.go). This package is the only one that wires backends, launcher and state
// together, and the only one that exits.
//
// # Reading order
//
// main.go, root.go, then any command: each has a file of its own. exit.go has the exit codes.
package main
