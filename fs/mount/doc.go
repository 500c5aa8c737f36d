// Package mount is the contract between those who serve a union and those who use one.
//
// A [Backend] serves a [layer.Spec]: fs/union does it itself over FUSE, fs/overlayfs hands it to the kernel's
// overlayfs. Both read and write the same format on disk, and everything above this package (the commands, the
// launcher, the benchmarks) sees only what is declared here. mounttest is the suite that every Backend passes.
//
// A backend's Open returns a [View]: the union is live, but is nowhere in the file tree yet. The owner then
// attaches it to a mount point, or hands its descriptor to a container that attaches it in a mount namespace of
// its own. So a union that fails to start leaves nothing to clean up.
package mount
