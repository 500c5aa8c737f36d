package union_test

import (
	"os"
	"slices"
	"testing"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestListingNotRemembered: of a directory that nobody watches the kernel keeps no names, though it is not asked whether it
// may: the next one who lists it sees what has changed, at once.
func TestListingNotRemembered(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	testfs.Write(t, dirs[0], "dir d\nfile d/a")
	parsed, _, err := layer.ParseOptions("timeout=3600")
	if err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2], Options: parsed.Options}
	m := server.Mount(t, spec, dirs[3])
	held, err := os.Open(m.Target + "/d")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for i, name := range []string{"", "b", "c", "d"} {
		if name != "" {
			testfs.Write(t, dirs[0]+"/d", "file "+name)
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
