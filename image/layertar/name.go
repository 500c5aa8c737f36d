package layertar

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/unionfsd/unionfsd/fs/whiteout"
)

// Errors of names in an archive.
var (
	errOutside  = errors.New("its name leads out of the archive")
	errNUL      = errors.New("its name has a zero byte in it")
	errWhiteout = errors.New("it is named as a whiteout and is none: .wh. is followed by the name of what is deleted")
)

// mark says what an entry means besides itself.
type mark int

const (
	markNone   mark = iota // the object that it is
	markHides              // the layers below have nothing of its name
	markOpaque             // the layers below have nothing in its directory
	markAUFS               // it is AUFS's own, and means nothing to others
)

// clean returns the path of an entry from the root of the layer: "" for the root itself. Names that begin with a slash
// begin at the root, as for tar(1).
func clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errNUL
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", errOutside
	}
	if p == "." {
		return "", nil
	}
	return p, nil
}

// parse returns the directory and the last name of an entry, without the prefix of a whiteout, and what it means.
func parse(name string) (dir, base string, m mark, err error) {
	p, err := clean(name)
	if err != nil || p == "" {
		return "", "", markNone, err
	}
	dir, base = path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	for part := range strings.SplitSeq(dir, "/") {
		if whiteout.IsAUFS(part) {
			return "", "", markNone, fmt.Errorf("it is below %q: %w", part, errWhiteout)
		}
	}
	switch hidden, hides := whiteout.AUFSHidden(base); {
	case base == whiteout.AUFSOpaque:
		return dir, "", markOpaque, nil
	case !whiteout.IsAUFS(base):
		return dir, base, markNone, nil
	case !hides:
		return dir, base, markAUFS, nil
	case hidden == "" || hidden == "." || hidden == "..":
		return "", "", markNone, errWhiteout
	default:
		return dir, hidden, markHides, nil
	}
}
