package union_test

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// unwatched mounts a union whose lower layer nobody watches.
func unwatched(t *testing.T, options, tree string) (m *mounttest.Mount, lower string) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	testfs.Write(t, dirs[0], tree)
	parsed, _, err := layer.ParseOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2], Options: parsed.Options}
	return server.Mount(t, spec, dirs[3]), dirs[0]
}

// TestListingNotRemembered: of a directory that nobody watches the kernel keeps no names, though it is not asked whether it
// may: the next one who lists it sees what has changed, at once.
func TestListingNotRemembered(t *testing.T) {
	m, lower := unwatched(t, "timeout=3600", "dir d\nfile d/a")
	held, err := os.Open(m.Target + "/d")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for i, name := range []string{"", "b", "c", "d"} {
		if name != "" {
			testfs.Write(t, lower+"/d", "file "+name)
		}
		want := []string{"a", "b", "c", "d"}[:i+1]
		if _, err := held.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		names, err := held.Readdirnames(-1)
		if slices.Sort(names); err != nil || !slices.Equal(names, want) {
			t.Errorf("who has it open: %q, %v, want %q", names, err, want)
		}
		entries, err := os.ReadDir(m.Target + "/d")
		if err != nil || len(entries) != len(want) {
			t.Errorf("who opens it: %v, %v, want %q", entries, err, want)
		}
	}
}

// TestReplacedLink: the target of a link that nobody watches, and that was replaced by another one with its inode number,
// is that of the new one.
func TestReplacedLink(t *testing.T) {
	m, lower := unwatched(t, "timeout=0", "symlink l -> 0")
	for i := range 20 {
		for range 2 { // the second time from the kernel's memory
			if got, err := os.Readlink(m.Target + "/l"); got != strconv.Itoa(i) {
				t.Errorf("link %d leads to %q, %v", i, got, err)
			}
		}
		if err := os.Remove(lower + "/l"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(strconv.Itoa(i+1), lower+"/l"); err != nil {
			t.Fatal(err)
		}
	}
}
