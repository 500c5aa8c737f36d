// Package image keeps container images and their layers.
//
// # Model
//
// An image is a manifest, which names a config and layers by their digests. The bytes of all three are blobs. What they
// hold is kept in two forms:
//
//	ROOT/images/                 an OCI image layout, which other tools read: oci-layout, index.json, blobs/sha256/HEX
//	ROOT/layers/DIFF-ID/diff/    a layer, unpacked: a directory that a union can have as a lower layer
//	ROOT/layers/DIFF-ID/layer.json
//	ROOT/layers/chain-CHAIN-ID/  what a layer lacks by itself, if anything
//	ROOT/incoming/               what is not all there yet
//
// A layer has three names. The digest is that of its blob, which may be compressed. The diff id is the digest of the
// archive in it, and names what is unpacked: a layer of overlayfs's form is the same directory whatever it is stacked on,
// so it is kept once, also for images that have it above others. The chain id is of a layer and all below it. It names what
// depends on those: a hard link to a file of another layer, a directory that a layer has something in and says nothing of.
//
// # Adding
//
// A [Store] takes what it is given into a delivery, a directory of its own in incoming: blobs, checked against their
// digests as they come, and layers, unpacked side by side and checked against their diff ids. When all is there it is
// written to disk and appears by renames, the entry in index.json last. What fails before leaves nothing, but downloads: those
// stay in incoming/DIGEST.part, for the next pull to go on with, until an image has them or gc removes them.
//
// # Locks
//
// Who uses or adds layers holds the store ([Store.Hold]), as many as like at a time. Who removes layers must hold it
// alone. index.json has a lock of its own, held only while it is changed.
//
// Formats and registries are go-containerregistry's, which is used nowhere else in this module.
package image
