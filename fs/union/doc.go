// Package union serves a [layer.Stack] as one file system over FUSE, by the rules and in the on-disk format of Linux
// overlayfs: an upper layer written here can be mounted by the kernel and the other way round. docs/semantics.md
// lists where the two differ, and why.
//
// # Model
//
// A node is one file as the kernel's FUSE client knows it: an inode with a number, held for as long as the client
// may ask for it. A directory node holds an open handle on every layer directory that it merges, the topmost first.
// Any other node is reached through its parent's handle and its name, until it loses the name while it is in use;
// then it holds a descriptor of its own. A node is of the lower layers or of the upper; it moves up once, by
// copy-up, and never back while it lives.
//
// An open file is a handle that points at the node, not at a layer: a file that was opened for reading before it was
// copied up reads what was written afterwards, as on the kernel.
//
// # Locks
//
// Downwards only:
//
//	file.mu                one open file
//	  node.copyMu          one copy-up of the node at a time; the only lock that is held while bytes are copied
//	    FS.renameMu        R for whatever changes or reads names, W for rename; guards node.parent and node.name
//	      directory.entriesMu   the entries of one directory: R to look up and list, W to change
//	        indexed.mu     how many names a file in the index has
//	        node.mu        where the node is found: R while it is being used, W to change it
//	          names.mu     leaf
//	          table.mu     leaf
//
// fileIO.mu is a leaf, too, but that the kernel is asked to take files while it is held.
//
// Copy-up comes first and the namespace is locked after it, so that nobody waits for the copy of another file. What
// was true before is looked at again under the lock. Functions named …Locked say what they need.
//
// renameMu is never taken again by who holds it: a waiting rename would stop the second RLock, and the first holder
// with it.
//
// # Reading order
//
// node.go, lookup.go and copyup.go, then any operation: create, remove, rename, link, file, readdir,
// readlink, attr, xattr, ioctl.
// lazy.go is copy-up block by block. passthrough.go is how the kernel comes to read and write files without us.
// redirect.go, metacopy.go, dataonly.go and index.go are what these options add to lookup, rename and copy-up; export.go
// makes file handles last; protect.go keeps to chattr +i and +a; owners.go shows ids as others. names.go knows which of many layers to ask. watch.go hears of
// what others do in the lower layers, remember.go says for how long the kernel need not ask, and notify.go makes it
// forget. serve.go answers the requests that package transport brings, quick.go those that come most; gate.go and
// handover.go stop it while another union takes the place of this one, observe.go tells who counts; backend.go is the way
// in. For readers of the kernel's fs/overlayfs: lookup.go is namei.c; create, remove, rename and link are dir.c; list.go is
// readdir.c; file.go is file.c; attr.go is inode.c.
package union
