// Package layer turns the text of a union (its [Spec]) into open handles on this host (a [Stack]).
//
// # Model
//
// A union shows several directory trees, its layers, as one. The upper layer takes every change; the lower
// layers are never written. Names, formats and rules are those of Linux overlayfs
// (Documentation/filesystems/overlayfs.rst), so that the same directories can be mounted by the kernel.
//
//   - [Spec]: which layers, as text. It says nothing of this host and survives a round trip through its String.
//   - [Stack]: a Spec opened here. Every layer is held as a descriptor that was taken before anything was
//     mounted, on a private read-only clone of its mount where the kernel has open_tree(2). So submounts of a
//     layer are not crossed, and a union may be mounted on top of one of its own layers.
//   - [Dir]: an open directory of one layer. Its methods take one name, never a path.
//   - [Work]: the staging area. What is to appear in the upper layer is built in work and appears there by one
//     rename or link, so that after a crash it is there whole or not at all.
package layer
