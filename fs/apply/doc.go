// Package apply writes what the upper layer of a union changes onto a directory: the lower layer that it came from, which
// is then what the union shows, or another one.
//
// What is done is what diff.Every tells: what is added or changed is made anew, whole, beside the place where it is to
// be, and appears there by one rename; what is deleted goes out of sight by one rename, and then away. So each file is at
// any moment what it was or what it is to be, but not all of them are at once: if it fails half way, it can be done again,
// with the same result. Redirects, metacopies, lazy copies and names joined by the index are resolved (package merged),
// names of one file stay names of one file, and holes stay holes.
//
// No symbolic link of the directory is followed, so nothing outside of it is written.
package apply
