package union

import "testing"

// TestKeptNodes: the table keeps so many nodes that the kernel has forgotten, with their directories, and no more.
func TestKeptNodes(t *testing.T) {
	const most = 3
	table := newTable()
	table.named.max, table.pinned.max = most, most
	dir := table.add(&node{dir: &directory{}, pin: -1}, key{ino: 1})
	var ids []uint64
	for i := range uint64(10) {
		ids = append(ids, table.add(&node{parent: dir, pin: -1}, key{ino: 2 + i}).id)
	}
	table.forget(dir.id, 1)
	for _, id := range ids {
		table.forget(id, 1)
	}
	for i, id := range ids {
		if kept := table.get(id) != nil; kept != (i >= len(ids)-most) {
			t.Errorf("node %d of %d: kept %v", i+1, len(ids), kept)
		}
	}
	if table.get(dir.id) != dir {
		t.Error("the directory of nodes that are kept is gone")
	}
	again := table.hold(ids[9])
	table.unkey(table.get(ids[8])) // it is removed
	if table.get(ids[8]) != nil {
		t.Error("a node without a name is kept")
	}
	for i := range uint64(most) {
		table.forget(table.add(&node{parent: dir, pin: -1}, key{ino: 20 + i}).id, 1)
	}
	if table.get(ids[9]) != again {
		t.Error("a node that is in use is gone")
	}
	if n := len(table.byID); n != 1+1+most { // the directory, the one in use, and the queue
		t.Errorf("%d nodes are left", n)
	}
}
