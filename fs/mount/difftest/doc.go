// Package difftest looks for differences between two backends with random operations.
//
// A [Case] is a few random lower layers and a list of random operations, both made from a seed. [Run] stacks
// identical copies of the layers with both backends, does each operation on both unions, and compares the results;
// then the merged trees; then, with the unions unmounted, the upper layers on disk; and then the merged trees again,
// with each backend over the upper layer that the other one wrote. With the kernel's overlayfs as one of the two,
// every difference is a fault of the other.
//
// [Shrink] makes the case of a failure small: it leaves out operations and objects as long as the failure stays.
// Names come from a small set, so that operations meet each other's objects often.
package difftest
