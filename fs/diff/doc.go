// Package diff tells how a union differs from its lower layers, in the words and by the rules of docker diff:
//
//	A  the path is new
//	C  it was there and is not what it was, or, of a directory, something in it is not
//	D  it is gone; of a directory, with all that was in it
//
// The answer is that of comparing the whole union with the whole of its lower layers, object by object. But only the
// upper layer is walked, since what is not in it has not changed: the cost is that of the upper layer, and of one
// lookup in the lower layers for each object there. An object was changed if its type, permissions, owner, device
// number or file capabilities differ or, unless it is a directory, its size or time of modification. A file that was
// copied up and is otherwise as it was is not a change.
//
// A name that shows a file by the index (index=on) has changed with it. To find such names takes a walk through the union, if
// it has an index.
//
// A directory that was renamed with redirect_dir=on is read with all that is in it, which is new where it is now.
//
// Nothing is written, and nothing is locked: the union may be mounted. What is changed while Changes looks may or may
// not be in its answer.
package diff
