// Package testfs holds what tests of file systems share.
//
//   - A [Tree] is a directory tree as text, one line for each object. [Write] makes it on disk; [Fingerprint] reads
//     one back in the same words, so that what a test expects is written as what it gives, and [Diff] of two
//     fingerprints shows at which path they differ.
//   - [Main] runs the tests of a package in a mount namespace and a temporary directory of their own, and fails
//     if they leave a mount, a process, a descriptor or a file behind.
//   - A [Func] is a function that runs in a child process, with a time-out: whoever serves a file system must not
//     use it from the same process.
//   - [Skip] is how a test says that this host lacks something.
package testfs
