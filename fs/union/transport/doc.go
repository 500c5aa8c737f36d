// Package transport carries the requests of the kernel's FUSE client to whoever answers them. It knows what a message is
// made of, and nothing of files.
//
// # Two ways
//
// /dev/fuse has one queue for the whole file system. A thread takes a request with read(2) and answers it with write(2):
// two system calls, and whichever thread is woken up, it is mostly on another CPU than the caller, unless it follows him.
// That is what a request costs: 3 to 6 microseconds where both are on one CPU, 10 to 50 where they are not.
//
// FUSE over io_uring (Linux 6.14) has a queue for each CPU. A request goes into the queue of the CPU that its caller is
// on, and is answered there, with one system call that also fetches the next. It is off unless the module parameter
// fuse.enable_uring is Y before the file system is made.
//
// # How FUSE over io_uring works
//
// What follows is told nowhere else but in the kernel: Documentation/filesystems/fuse/fuse-io-uring.rst,
// fs/fuse/dev_uring.c, include/uapi/linux/fuse.h.
//
//	                  kernel: queue of CPU n                          server: a thread pinned to CPU n
//	                                                             REGISTER(qid n, headers, payload)
//	          entry "available" <──────────────────────────────  io_uring_enter: submit 1, wait for 1
//	caller ─> request: headers and payload are filled ────────>  a completion; the thread answers in the same place
//	caller <─ answer <───────────────────────────────────────── COMMIT_AND_FETCH(qid n, commit id of the request)
//	          entry "available" again                            io_uring_enter: submit 1, wait for 1
//
// An entry is a pair of buffers that a REGISTER command has lent to the kernel, and takes one request at a time. Both
// commands are IORING_OP_URING_CMD on the descriptor of /dev/fuse, in submission entries of twice the usual size
// (IORING_SETUP_SQE128), since struct fuse_uring_cmd_req needs the room. The ring itself is a mere vehicle: there is
// nothing in it that says FUSE.
//
// The headers are struct fuse_uring_req_header: the in header, into whose place the out header is written; what the
// operation has of fixed size; and struct fuse_uring_ent_in_out, with the commit id and the size of the payload. The
// payload is all the rest: names and data of the request, then everything of the answer but its header. So who answers
// must be done with the names when the answer begins.
//
// What to know besides:
//
//   - INIT comes by /dev/fuse, and its answer accepts the offer by a flag. From then on requests wait until every
//     possible CPU has an entry; if there never is one, they wait for ever. So all that can fail is done before the answer.
//     A REGISTER that fails takes the acceptance back.
//   - FORGET and INTERRUPT keep coming by /dev/fuse, and notifications are written there. An INTERRUPT can overtake
//     the request that it is about, and the kernel does not send it again, as it would on /dev/fuse.
//   - An entry whose thread is busy takes nothing else, and nobody steals from the queue of another CPU: a copy-up must not
//     stop a CPU. And a request that finds no entry waits for the next answer on its CPU, since a new entry takes only what
//     comes after it (fuse_uring_do_register, fuse_uring_next_fuse_req). So there are entries in reserve: see queue.
//   - An entry cannot be taken back: its memory in the kernel stays until the connection ends. So a thread stays, too.
//   - A process that is killed while it holds the last reference to the mount that it serves, a descriptor or its mount
//     namespace, never ends (Linux 6.18): it unmounts as it exits, and waits in fuse_wait_aborted for requests in a ring
//     that goes after that. sync(2) then hangs for everybody. So see to it that somebody else has the mount, too: the
//     launcher lets go of it when its container has it (mount.View.Release). "mount -f" in a private mount namespace can
//     still be killed into that.
//   - When the connection ends, every entry that waits completes with ENOTCONN, and so does every later command.
//
// # Files
//
// conn.go is the way in; handshake.go does INIT; device.go answers by /dev/fuse, and queue.go by io_uring, each with
// threads that come as they are needed: for /dev/fuse, lookout.go says when, and follow.go on which CPU. ring.go is as much
// of io_uring as it takes. scheduler.go keeps Go's scheduler out of the way.
package transport
