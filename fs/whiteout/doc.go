// Package whiteout is the part of overlayfs's on-disk format that says "not here": how it is written, recognised
// and told from what a user may have.
//
//	what                      on disk                                                   read     written
//	a name is deleted         character device 0:0 of that name                         always   always, but
//	                          empty regular file with the attribute overlay.whiteout,   always   no devices
//	                          in a directory with overlay.opaque=x
//	                          .wh.NAME beside it                                        aufs     aufs, no devices
//	a directory hides what    directory with the attribute overlay.opaque=y             always   always, but
//	is below it               .wh..wh..opq in it                                        aufs     aufs, no attributes
//
// no devices: the upper layer's file system does not let us make any, as one that is a union itself, in a container. Then
// the form is that in which overlayfs (Linux 6.7) takes whiteouts of an overlay in its lower layers. The directory is
// marked before it gets the first one; of a crash in between nothing is to be seen.
//
// aufs: in unions with the option aufs_marks=on, for layers that AUFS or a container engine has written.
//
// overlay.NAME stands for trusted.overlay.NAME, or user.overlay.NAME in a union with userxattr. A whiteout also
// counts in the lowest layer, where there is nothing for it to hide. All whiteouts that one mount makes are hard
// links of one inode, which saves making it and an inode for each (ovl_whiteout in fs/overlayfs/dir.c).
//
// Source: "whiteouts and opaque directories" in Documentation/filesystems/overlayfs.rst.
package whiteout
