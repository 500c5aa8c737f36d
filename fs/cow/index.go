package cow

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Index keeps lower hard links together: with index=on, the names of a lower file stay names of one file when it is
// copied up. The copy gets a name in the directory index of workdir first, the hexadecimal text of its origin. From
// there it is linked to its names in the upper layer, to each when it is used for a change, and whoever finds another
// name of it in a lower layer finds the copy in the index. Like fs/overlayfs/copy_up.c and ovl_lookup_index.
//
// The names that the file has in the union are those of the copy, but that in the index, and the lower ones that the
// upper layer does not cover. Nobody could count them; so their number is in overlay.nlink of the copy, as a
// difference: "U+1" is one more than the links of the copy, "L-1" one less than those of the lower file. Before a
// change the difference is written to the number of links that the change does not alter, or alters in the same way,
// so that it is right whether the change is made or not (fs/overlayfs/inode.c, ovl_set_nlink_common).
//
// An index belongs to one upper layer and its topmost lower one: see [OpenIndex].
type Index struct {
	dir     *layer.Dir
	origins *Origins
	xattr   layer.XattrNames
}

// Name is the name that the copy of the lower file ref has, or would have. It is empty if it can have none.
func (x *Index) Name(ref layer.Ref, st *unix.Stat_t) (string, error) {
	id, err := x.origins.identify(ref, st.Dev)
	if err == unix.EOPNOTSUPP {
		return "", nil
	}
	return hex.EncodeToString(id), err
}

// At is the entry of a name.
func (x *Index) At(name string) layer.Ref { return x.dir.At(name) }

// Publish puts a finished copy in the index.
func (x *Index) Publish(s *layer.Staged, name string) error { return s.Publish(x.dir, name, layer.Add) }

// Remove takes a file out of the index that has lost its last name in the union.
func (x *Index) Remove(name string) error { return x.dir.Unlink(name) }

// Of returns the name of the upper file obj, described by st, in the index, and the lower file that it is a copy of. ok
// is false if it is not in the index.
func (x *Index) Of(obj layer.Ref, st *unix.Stat_t) (name string, lower Lower, ok bool, err error) {
	lower, ok = x.origins.Find(obj, x.xattr)
	if !ok {
		return "", lower, false, nil
	}
	name = hex.EncodeToString(lower.id)
	var entry unix.Stat_t
	err = x.At(name).Stat(&entry)
	if err == unix.ENOENT {
		return "", lower, false, nil
	}
	return name, lower, err == nil && entry.Dev == st.Dev && entry.Ino == st.Ino, err
}

// Verify returns ESTALE if the upper file obj is a copy of another lower file than ref, which is on the device dev.
func (x *Index) Verify(obj, ref layer.Ref, dev uint64) error {
	id, err := x.origins.identify(ref, dev)
	if err == nil {
		err = verify(obj, x.xattr.Origin, id)
	}
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// Links returns how many names the indexed file obj has in the union, where the lower file has lower links and obj has
// upper ones. What makes no sense is read as upper, as the kernel does (ovl_get_nlink).
func (x *Index) Links(obj layer.Ref, lower, upper uint64) uint64 {
	if n, ok := x.links(obj, lower, upper); ok {
		return n
	}
	return upper
}

func (x *Index) links(obj layer.Ref, lower, upper uint64) (uint64, bool) {
	var buf [12]byte
	n, err := obj.GetxattrInto(x.xattr.Nlink, buf[:])
	if err != nil {
		return 0, false
	}
	return parseLinks(string(buf[:n]), lower, upper)
}

func parseLinks(text string, lower, upper uint64) (uint64, bool) {
	if len(text) < 2 || text[1] != '+' && text[1] != '-' {
		return 0, false
	}
	diff, err := strconv.ParseInt(text[1:], 10, 32)
	if err != nil {
		return 0, false
	}
	base := upper
	switch text[0] {
	case 'U':
	case 'L':
		base = lower
	default:
		return 0, false
	}
	n := int64(base) + diff
	return uint64(n), n > 0
}

// Base is what the number of names is told by.
type Base byte

const (
	ByUpper Base = 'U' // the links of the copy: for a change that adds a name, or takes one away, to both
	ByLower Base = 'L' // the links of the lower file: for a change that gives the copy a link, and the file no name
)

// Note writes down that obj has links names in the union, by base, which has real links.
func (x *Index) Note(obj layer.Ref, base Base, links, real uint64) error {
	text := fmt.Sprintf("%c%+d", base, int64(links)-int64(real))
	return obj.Setxattr(x.xattr.Nlink, []byte(text), 0)
}
