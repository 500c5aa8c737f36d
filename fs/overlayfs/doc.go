// Package overlayfs is the kernel backend: it hands a [layer.Spec] to Linux overlayfs.
//
// # Model
//
// A union is made in three steps, and is nowhere in the file tree until its owner attaches it:
//
//	fsopen("overlay")                      a configuration context
//	fsconfig(lowerdir+, upperdir, ...)     one layer at a time, as descriptors
//	fsconfig(CMD_CREATE), fsmount          a detached mount: the View
//
// So there is no page of option text to fill up, no character in a path that needs care, and up to the kernel's 500
// layers. Kernels differ in what the second step takes:
//
//	Linux 6.13   directories as descriptors
//	Linux 6.7    lowerdir+, as strings of at most 255 bytes
//	before       only mount(2) takes many layers, as one text of less than a page; see mountByText
//
// Which form works is found out by trying, not from the version: distributions backport.
//
// The view lives in the kernel. Nobody has to stay to serve it, so a View that was attached and closed leaves a union
// that works, but also one that no lock protects: that is why [layer.Open] looks for overlays on the same upper layer.
//
// # Options
//
// What changes the format on disk is set explicitly, so that the overlay module's parameters do not decide what a
// union is: index, metacopy, nfs_export and xino are off unless asked for, and redirects are followed but not made
// unless asked for. A layer that holds what is switched off gives EPERM for it, never a wrong tree.
//
// # Overlap
//
// Overlayfs refuses layers that contain one another with ELOOP, but for one case: it mounts an upper layer or work
// directory that is inside a lower layer, and then gives ELOOP to who looks at these two directories through the union.
// Open refuses that as well, unless [Backend.AllowInside] is set. What counts is the tree of one file system: a
// directory of another file system that is mounted inside a lower layer is not inside it, since layers do not cross
// mounts.
package overlayfs
