// Package wire sends JSON messages, with open files beside them, over a stream socket of the Unix domain.
//
// A message is its length in four bytes, then its JSON. The descriptors of its files travel with the first of these
// bytes (SCM_RIGHTS, unix(7)), so whoever has read a message has them.
package wire
