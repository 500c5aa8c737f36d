// Package merged reads a union from its layers, without mounting it: what a name is, which directories are merged under
// it, and where the data of a file are.
//
// It knows all that overlayfs keeps in layers: whiteouts, opaque directories, redirects of directories and of files,
// metacopies with their data in a layer below or in a data-only one, and the lazy copies of the FUSE backend, whose data are
// in two files at once. Nothing is written, and nothing is locked: the union may be mounted. It works where nothing can be
// mounted, too, and costs what is looked at.
package merged
