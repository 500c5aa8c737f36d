package testfs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Kind is the first word of a line of a tree.
type Kind string

// The kinds of objects.
const (
	Dir      Kind = "dir"
	File     Kind = "file"
	Symlink  Kind = "symlink"
	Hardlink Kind = "hardlink" // another name of an object that stands before it in the tree
	Fifo     Kind = "fifo"
	Socket   Kind = "socket"
	Char     Kind = "char"
	Block    Kind = "block"
	Whiteout Kind = "whiteout" // in a layer: a character device 0:0
	Broken   Kind = "broken"   // only in fingerprints: what could not be read, and why
)

// A Tree is a directory tree, parents before their children. Its text has one line for each object, a kind, a path
// relative to the root of the tree, and what is not as usual:
//
//	dir      etc                                 # 0755, owned by root
//	dir      etc/old opaque                      # hides what lower layers have in it
//	file     etc/hostname "one\n" mode=0600 owner=1000:1000
//	file     disk.img size=1048576 data=65536:"boot" data=131072:"root"   # holes elsewhere
//	symlink  etc/link -> "a target"
//	hardlink etc/other -> etc/hostname
//	char     dev/null 1:3 mode=0666
//	whiteout etc/gone
//	file     bin/ping user.comment="set" mtime=1700000000.5
//
// Words that hold spaces or other odd bytes are quoted as in Go. Lines that are empty or start with # do not count.
type Tree []Entry

// Entry is one object of a [Tree].
type Entry struct {
	Kind         Kind
	Path         string // "." is the root of the tree
	Mode         uint32 // permissions with set-id and sticky bits
	UID, GID     uint32
	Size         int64     // of a file
	Data         []Extent  // what a file holds where; zeros elsewhere
	Sum          string    // hash of a file that is too long to be shown
	Target       string    // of a symlink; the earlier path of a hardlink; why something is broken
	Major, Minor uint32    // of a device
	Nlink        uint64    // of what is not a directory; 0 is taken for 1
	MTime        time.Time // zero: not told
	New          bool      // in a fingerprint: modified after Options.Since
	Opaque       string    // y or x
	Redirect     string    // overlay.redirect of a directory or file
	Metacopy     bool      // the data are still in a lower layer
	Xattrs       map[string]string
}

// Extent is a piece of a file.
type Extent struct {
	Off  int64 // bytes from the start
	Data string
}

// shown is the length in bytes up to which the content of a file is in the text; of longer ones, the hash is.
const shown = 80

func defaultMode(k Kind) uint32 {
	switch k {
	case Dir:
		return 0o755
	case Symlink:
		return 0o777
	}
	return 0o644
}

// String is the text of t in one canonical form: sorted so that children follow their parent, and without what is
// as usual. Two trees are equal if and only if their strings are.
func (t Tree) String() string {
	lines := make([]Entry, 0, len(t))
	for _, e := range t {
		if e.plainRoot() {
			continue
		}
		lines = append(lines, e)
	}
	sort.SliceStable(lines, func(i, j int) bool { return pathKey(lines[i].Path) < pathKey(lines[j].Path) })
	var b strings.Builder
	for _, e := range lines {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Source is the text of t in the order of its entries, with the content of all files: what [Parse] reads back as t.
func (t Tree) Source() string {
	var b strings.Builder
	for _, e := range t {
		b.WriteString(e.line(Entry.source))
		b.WriteByte('\n')
	}
	return b.String()
}

// plainRoot says whether e is the root with nothing to be told of it, which texts leave out.
func (e Entry) plainRoot() bool { return e.Path == "." && e.String() == "dir ." }

// pathKey sorts a directory's children right after it: a before a/b before a.txt.
func pathKey(path string) string {
	if path == "." {
		return ""
	}
	return strings.ReplaceAll(path, "/", "\x00")
}

// String is the line of e.
func (e Entry) String() string { return e.line(Entry.content) }

// line is the line of e, with what content tells of a file.
func (e Entry) line(content func(Entry) []string) string {
	w := []string{string(e.Kind), quote(e.Path)}
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	switch e.Kind {
	case Whiteout:
		return strings.Join(w, " ")
	case Broken:
		add("%s", quote(e.Target))
		return strings.Join(w, " ")
	case Hardlink:
		add("-> %s", quote(e.Target))
		return strings.Join(w, " ")
	case Symlink:
		add("-> %s", quote(e.Target))
	case Char, Block:
		add("%d:%d", e.Major, e.Minor)
	case File:
		w = append(w, content(e)...)
	}
	if e.Mode != defaultMode(e.Kind) {
		add("mode=%04o", e.Mode)
	}
	if e.UID != 0 || e.GID != 0 {
		add("owner=%d:%d", e.UID, e.GID)
	}
	if e.Nlink > 1 {
		add("nlink=%d", e.Nlink)
	}
	switch e.Opaque {
	case "":
	case "y":
		add("opaque")
	default:
		add("opaque=%s", quote(e.Opaque))
	}
	if e.Redirect != "" {
		add("redirect=%s", quote(e.Redirect))
	}
	if e.Metacopy {
		add("metacopy")
	}
	names := make([]string, 0, len(e.Xattrs))
	for name := range e.Xattrs {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		add("%s=%q", name, e.Xattrs[name])
	}
	switch {
	case e.New:
		add("mtime=new")
	case !e.MTime.IsZero():
		s := fmt.Sprintf("%d.%09d", e.MTime.Unix(), e.MTime.Nanosecond())
		add("mtime=%s", strings.TrimSuffix(strings.TrimRight(s, "0"), "."))
	}
	return strings.Join(w, " ")
}

// content is the words that tell what the file e holds.
func (e Entry) content() []string {
	switch {
	case e.Sum != "":
		return []string{fmt.Sprintf("size=%d", e.Size), "sum=" + e.Sum}
	case e.Size == 0:
		return nil
	case e.Size <= shown:
		return []string{fmt.Sprintf("%q", e.bytes())}
	}
	return []string{fmt.Sprintf("size=%d", e.Size), "sum=" + sum(e.bytes())}
}

// source is the words that give the file e the content it has.
func (e Entry) source() []string {
	w := []string{fmt.Sprintf("size=%d", e.Size)}
	for _, x := range e.Data {
		w = append(w, fmt.Sprintf("data=%d:%q", x.Off, x.Data))
	}
	return w
}

func (e Entry) bytes() []byte {
	b := make([]byte, e.Size)
	for _, x := range e.Data {
		copy(b[x.Off:], x.Data)
	}
	return b
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}
