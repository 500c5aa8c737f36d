// Package ns launches programs in a root file system of their own: in new mount, pid, uts, ipc and cgroup namespaces, on
// the network of the host or on none. What the root consists of is not its business; it takes detached mounts as
// descriptors and lets nothing else of the host's file tree into the container.
//
// # Processes
//
//	supervisor ─────── clone ───────> init, pid 1 ─── fork ───> program
//	the caller of Start               this binary again,        Config.Argv
//	    │                             argv[0] "unionfsd-init"   ──> programs of Exec
//	    └──────── a socket pair ────────┘
//	      the order →   ← started, or the step that failed
//	      requests  →   ← answers, exit codes
//
// The supervisor is the process that calls [Start]. It turns the [Config] into a plan, clones init, sends it the
// plan, and waits for its end. It keeps its own mount namespace and root. So it may be the one that serves the
// root over FUSE: pivot_root(2) moves the root of every process in the namespace where it is called, and a FUSE
// server that shared that namespace would end up on top of itself. A thread of the supervisor is set aside for as
// long as the container lives, since the kernel kills init when the thread that made it ends.
//
// Init is this same binary, sealed so that the container cannot change it (seal.go). [Init], called first in main,
// notices by argv[0] that it is needed and does not return. It executes the plan step by step, starts the program, and
// from then on forwards signals to it, starts further programs that the supervisor asks for, and reaps every process of
// the container that dies without a parent. When the program ends it reports the exit code and ends too, upon which the
// kernel kills what is left. It also ends when the supervisor does: by the kernel's signal, or if the supervisor died
// before that was armed, by the end of file on the socket.
//
// Without a terminal of its own the program stays in the session and the process group of the supervisor, so that it can
// use the terminal it was given and is interrupted from its keyboard. Init leaves that process group: what the terminal
// sends to the whole group has reached the program already and is not to be forwarded. [Container.Forward] knows this too.
// That the program cannot type into that terminal (TIOCSTI) is for the filter of system calls to see to.
//
// # The plan
//
// What is to be done is data, an ordered list of steps that [Start] computes without looking at the host. Init
// executes it with one switch. A step that fails is named in the [Error] that Start returns, along with a fix,
// and init ends: all that the steps before it did is in namespaces that end with it. In short, the plan is: make
// all mounts private; attach the root over "/"; mount /proc, /sys and /dev in it, and what the user wants; mask what
// tells of the host; pivot_root(".", ".") into the root and detach the old one; check that the mount table holds the
// mounts of the plan and nothing else.
//
// Everything is mounted through descriptors that were opened beneath the root. Our own mount points are reached through
// no symbolic link at all; those that the user names, through links as they are in the container, none of which leads out
// of it. So a root with hostile contents cannot lead a mount elsewhere.
//
// # Users
//
// A container is in the user namespace of the supervisor, or in one of its own ([Config.Users]). Then its init is root of
// that, and nobody outside. Its privileges are over its own namespaces, so what is done in them is done by init; what it
// attaches, the supervisor has opened with its own. Who owns the files of the root is for the one to see to who made it.
//
// # Confinement
//
// A program starts with the capabilities of the bounding set and a filter of system calls (caps.go, seccomp.go). Both
// belong to threads, and pass on to what a thread forks: so init confines a thread, forks, and lets the thread end
// (spawn.go). No program in between has one foot in the container.
//
// # Requirements
//
// CAP_SYS_ADMIN, and Linux 5.12 (mount_setattr; openat2, close_range and the new mount API are older).
package ns
