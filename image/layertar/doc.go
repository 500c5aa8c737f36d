// Package layertar turns the layers of images from tar archives into directories that overlayfs can stack, and back.
//
//	in the archive               in the directory
//	.wh.NAME                     whiteout: character device 0:0 called NAME
//	.wh..wh..opq in a directory  overlay.opaque=y on the directory
//	attribute overlay.X          overlay.overlay.X: what a user has of that name is not a mark
//
// [Unpack] trusts nothing in an archive. All that it does is done beneath the directory it was given: the parent of an
// entry is opened by openat2(2) with RESOLVE_IN_ROOT, which lets a symbolic link lead anywhere in the layer and nowhere
// else, and the entry is made in it by its last name alone. A name that climbs out of the archive is an error, not a
// name to be mended.
//
// A layer is unpacked by itself, without the layers below it, so that it is the same directory whatever it is stacked
// on. Two things in an archive do depend on what is below, and [Contents] lists them: a directory that has something in
// it but no entry of its own, the root among them, and a hard link to a file of another layer. [Complete] makes what a
// layer lacks for them, as one more layer.
//
// [Pack] writes a union as one archive: what its upper layers change, with whiteouts, or the whole file system. The same
// layers give the same bytes.
//
// Source: "Image Layer Filesystem Changeset", layer.md of OCI's image specification.
package layertar
