package union

import (
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestNodeSize: a node may be one of millions. The sizes are those that Go's allocator has.
func TestNodeSize(t *testing.T) {
	if size := unsafe.Sizeof(node{}); size > 208 {
		t.Errorf("a node has %d bytes", size)
	}
	if size := unsafe.Sizeof(key{}); size > 16 {
		t.Errorf("a key has %d bytes", size)
	}
}

// TestTableShrinks: when most of many nodes are gone, so is the memory that they took in the maps, and the rest is found.
func TestTableShrinks(t *testing.T) {
	const many, few = 1 << 15, 10
	table := newTable()
	shrunk := 0
	table.shrunk = func() { shrunk++ }
	for i := range uint64(many) {
		table.add(&node{pin: -1}, key{ino: 1 + i})
	}
	if shrunk > 0 || table.most != many {
		t.Errorf("after %d nodes: shrunk %d times, most is %d", many, shrunk, table.most)
	}
	for i := range uint64(many) {
		if n := table.find(key{ino: 1 + i}, false); i >= few {
			table.forget(n.id, 1)
		}
	}
	if shrunk != 1 || table.most > many/8 {
		t.Errorf("after most of them are gone: shrunk %d times, most is %d", shrunk, table.most)
	}
	for i := range uint64(few) {
		n := table.find(key{ino: 1 + i}, false)
		if n == nil || table.get(n.id) != n {
			t.Errorf("node %d is not found", i)
		}
	}
	if len(table.byID) != few || len(table.byKey) != few {
		t.Errorf("%d nodes by id and %d by key are left, want %d", len(table.byID), len(table.byKey), few)
	}
}

// TestLookupsAreGivenBack: an operation on nodes takes no reference for good.
func TestLookupsAreGivenBack(t *testing.T) {
	fs := benchFS(t, 2)
	dir := benchLookup(t, fs, rootID, "dir")
	header := benchHeader(dir)
	ok := func(status fuse.Status) {
		t.Helper()
		if status != fuse.OK {
			t.Fatal(status)
		}
	}
	var entry fuse.EntryOut
	rename := fuse.RenameIn{InHeader: header, Newdir: dir}
	ok(fs.Mkdir(nil, &fuse.MkdirIn{InHeader: header, Mode: 0o755}, "made", &entry))
	made := entry.NodeId
	ok(fs.Rename(nil, &rename, "made", "moved"))        // of the upper layer
	ok(fs.Rename(nil, &rename, benchName(0), "copied")) // copied up
	ok(fs.Rename(nil, &rename, "copied", benchName(1))) // in the place of a lower file
	ok(fs.Rmdir(nil, &header, "moved"))
	ok(fs.Unlink(nil, &header, benchName(1)))
	ok(fs.Unlink(nil, &header, benchName(2)))
	fs.Forget(made, 1)
	fs.Forget(dir, 1)
	if n := len(fs.nodes.byID); n != 1 {
		t.Errorf("%d nodes are left besides the root", n-1)
	}
}
