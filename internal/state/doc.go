// Package state keeps on disk what one unionfsd command must leave for the next.
//
// # Model
//
// There is no daemon that knows everything. Each mount is served by a process of its own and each container has a
// supervisor of its own; what they have in common is a directory, the state root:
//
//	ROOT/mounts/ID.json                 one union in the file tree
//	ROOT/mounts/ID.sock                 the process that serves it answers here
//	ROOT/containers/NAME/
//	    container.json                  what runs, or ran, in it
//	    upper/ work/                    its writable layer
//	    etc/                            hosts and resolv.conf that it was given
//	    points/                         a layer with what is mounted on and no layer has
//	    lock                            held by its supervisor
//	    control                         its supervisor answers here
//	    log                             what it wrote, if it runs detached
//	ROOT/tally.json                     how many containers were started and ended, for metrics
//
// What is true is asked of the kernel and never of these files: a union is mounted if mountinfo says so, a
// container runs if its lock is held. So nothing here can be wrong after a kill -9 or a reboot; at most it is
// left over, and what is left over is dropped when it is met.
//
// Files appear by one rename, directories of containers too, and go by one rename: nobody sees a half of either.
package state
