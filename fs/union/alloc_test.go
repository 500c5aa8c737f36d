package union

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestAllocations: what is asked most makes little garbage: a copy of each name that a system call takes, and what is kept.
func TestAllocations(t *testing.T) {
	fs := benchFS(t, 1)
	dir := benchLookup(t, fs, rootID, "dir")
	file := benchLookup(t, fs, dir, benchName(0))
	ok := func(status fuse.Status) {
		if status != fuse.OK {
			t.Fatal(status)
		}
	}
	open := func() uint64 {
		in := fuse.OpenIn{InHeader: benchHeader(file), Flags: unix.O_RDONLY}
		var out fuse.OpenOut
		ok(fs.Open(nil, &in, &out))
		return out.Fh
	}
	header, names := benchHeader(dir), []string{benchName(0), benchName(1)}
	held := open()
	buf := make([]byte, 4096)
	for _, c := range []struct {
		what string
		most float64
		do   func()
	}{
		{"lookup of a file that is known", 1, func() {
			var out fuse.EntryOut
			ok(fs.Lookup(nil, &header, names[0], &out))
		}},
		{"lookup of a file that is not known", 5, func() { // also its node, and the names of it and of the mark of a metacopy
			var out fuse.EntryOut
			ok(fs.Lookup(nil, &header, names[1], &out))
			fs.Forget(out.NodeId, 1)
		}},
		{"lookup of a name that is not there", 1, func() {
			var out fuse.EntryOut
			ok(fs.Lookup(nil, &header, "missing", &out))
		}},
		{"getattr", 1, func() {
			var out fuse.AttrOut
			ok(fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: benchHeader(file)}, &out))
		}},
		{"open and release", 2, func() { fs.Release(nil, &fuse.ReleaseIn{Fh: open()}) }},
		{"read", 1, func() {
			_, status := fs.Read(nil, &fuse.ReadIn{InHeader: benchHeader(file), Fh: held, Size: 4096}, buf)
			ok(status)
		}},
	} {
		c.do() // what is made once
		if n := testing.AllocsPerRun(200, c.do); n > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.what, n, c.most)
		}
	}
	fs.Release(nil, &fuse.ReleaseIn{Fh: held})
}
