package diff

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// stack writes the trees of an upper layer and of lower layers, the topmost first, and opens them.
func stack(t *testing.T, upper string, lowers ...string) *layer.Stack {
	t.Helper()
	testfs.NeedRoot(t) // to make whiteouts and trusted.* attributes
	dirs := testfs.Layers(t, len(lowers)+2)
	for i, text := range append(lowers, upper) {
		testfs.Write(t, dirs[i], text)
	}
	n := len(lowers)
	return openStack(t, layer.Spec{Lower: dirs[:n], Upper: dirs[n], Work: dirs[n+1]})
}

func openStack(t *testing.T, spec layer.Spec) *layer.Stack {
	t.Helper()
	s, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func text(t *testing.T, s *layer.Stack) string {
	t.Helper()
	changes, err := Changes(s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// old is a time that testfs gives files so that two of them are the same in all that counts.
const old = " mtime=1600000000.25"

func TestChanges(t *testing.T) {
	tests := []struct {
		name   string
		upper  string
		lowers []string
		want   string
	}{
		{name: "nothing", lowers: []string{"dir d\nfile d/f"}},
		{
			name:   "added",
			upper:  "dir d\nfile d/new\ndir new\nfile new/f\ndir new/sub\nsymlink new/sub/s -> /\nfifo p",
			lowers: []string{"dir d\nfile d/f"},
			want:   "C /d\nA /d/new\nA /new\nA /new/f\nA /new/sub\nA /new/sub/s\nA /p\n",
		},
		{
			name:   "deleted",
			upper:  "dir bin\nwhiteout bin/tar\nwhiteout etc\nwhiteout was-never-there",
			lowers: []string{"dir bin\nfile bin/tar\ndir etc\ndir etc/a\nfile etc/a/b"},
			want:   "C /bin\nD /bin/tar\nD /etc\n",
		},
		{
			name:   "deleted from a lower layer already",
			upper:  "whiteout f\ndir d\nwhiteout d/g",
			lowers: []string{"whiteout f\ndir d opaque", "file f\ndir d\nfile d/g"},
		},
		{
			name:   "put where a lower layer has a whiteout",
			upper:  "file f\ndir d\nfile d/f",
			lowers: []string{"whiteout f\nwhiteout d", "file f\ndir d\nfile d/f"},
			want:   "A /d\nA /d/f\nA /f\n",
		},
		{
			name:   "copied up and the same",
			upper:  "dir d\nfile d/f \"1\"" + old + "\nsymlink s -> d" + old + "\nfile no-nanoseconds mtime=1600000000",
			lowers: []string{"dir d\nfile d/f \"1\"" + old + "\nsymlink s -> d" + old + "\nfile no-nanoseconds mtime=1600000000.5"},
		},
		{
			name: "changed in one way each",
			upper: "file mode mode=0600" + old + "\nfile owner owner=1:0" + old + "\nfile group owner=0:1" + old +
				"\nfile size \"12\"" + old + "\nfile time mtime=1600000000.75\nchar rdev 1:5" + old + "\nsymlink link -> there" +
				"\ndir dmode mode=0700\ndir downer owner=1:0\nfile type" + old + "\nfile same \"1\"" + old,
			lowers: []string{"file mode" + old + "\nfile owner" + old + "\nfile group" + old +
				"\nfile size \"1\"" + old + "\nfile time mtime=1600000000.25\nchar rdev 1:3" + old + "\nsymlink link -> here" + old +
				"\ndir dmode\ndir downer\nfifo type" + old + "\nfile same \"1\"" + old},
			want: "C /dmode\nC /downer\nC /group\nC /link\nC /mode\nC /owner\nC /rdev\nC /size\nC /time\nC /type\n",
		},
		{
			name:   "the time of a directory says nothing",
			upper:  "dir d mtime=1700000000",
			lowers: []string{"dir d mtime=1600000000"},
		},
		{
			name:   "parents of changes",
			upper:  "dir a\ndir a/b\ndir a/b/c\nfile a/b/c/f \"new\"\ndir a/x\ndir a/x/y",
			lowers: []string{"dir a\ndir a/b\ndir a/b/c\nfile a/b/c/f\ndir a/x\ndir a/x/y"},
			want:   "C /a\nC /a/b\nC /a/b/c\nC /a/b/c/f\n",
		},
		{
			name:   "a directory over a file, a file over a directory",
			upper:  "dir d\nfile d/f\nfile e",
			lowers: []string{"file d\ndir e\nfile e/g"},
			want:   "C /d\nA /d/f\nC /e\n",
		},
		{
			name:  "opaque",
			upper: "dir d opaque\nfile d/same" + old + "\nfile d/other \"new\"\nfile d/new\nwhiteout d/white",
			lowers: []string{
				"dir d\nfile d/same" + old + "\nfile d/other\nfile d/gone\nwhiteout d/lowest",
				"dir d\nfile d/lowest\nfile d/white\ndir d/sub\nfile d/sub/f",
			},
			want: "C /d\nD /d/gone\nA /d/new\nC /d/other\nD /d/sub\nD /d/white\n",
		},
		{
			name:   "made again and empty",
			upper:  "dir d opaque",
			lowers: []string{"dir d\nfile d/f"},
			want:   "C /d\nD /d/f\n",
		},
		{
			name:   "made again as it was",
			upper:  "dir d opaque\nfile d/f" + old,
			lowers: []string{"dir d\nfile d/f" + old},
		},
		{
			name:   "what is below an opaque directory is hidden as well",
			upper:  "dir d opaque\ndir d/sub\nfile d/sub/new",
			lowers: []string{"dir d\ndir d/sub\nfile d/sub/gone\ndir d/sub/deep\nfile d/sub/deep/f"},
			want:   "C /d\nC /d/sub\nD /d/sub/deep\nD /d/sub/gone\nA /d/sub/new\n",
		},
		{
			name:   "merged from many layers",
			upper:  "dir d\nwhiteout d/1\nwhiteout d/2\nwhiteout d/3\nfile d/4 \"x\"",
			lowers: []string{"dir d\nfile d/1", "", "dir d\nfile d/2", "file d", "dir d\nfile d/3\nfile d/4"},
			want:   "C /d\nD /d/1\nD /d/2\nA /d/4\n", // 3 and 4 of the last layer are below a file
		},
		{
			name:   "whiteouts as attributes",
			upper:  "dir d opaque=x\nfile d/f trusted.overlay.whiteout=\"y\"\nfile d/not-empty \"1\" trusted.overlay.whiteout=\"y\"",
			lowers: []string{"dir d\nfile d/f\nfile d/not-empty"},
			want:   "C /d\nD /d/f\nC /d/not-empty\n",
		},
		{
			name:   "symlinks are not followed",
			upper:  "dir etc\nfile etc/passwd \"new\"\nsymlink up -> /etc",
			lowers: []string{"symlink etc -> /etc\ndir up\nfile up/passwd"},
			want:   "C /etc\nA /etc/passwd\nC /up\n",
		},
		{
			name:   "sorted by bytes",
			upper:  "dir a\nfile a/b\nfile a-b\nfile \"a b\"\nfile B\nfile ä",
			lowers: []string{""},
			want:   "A /B\nA /a\nA /a b\nA /a-b\nA /a/b\nA /ä\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := text(t, stack(t, test.upper, test.lowers...)); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	tree := "file changed" + old + "\nfile same" + old + "\nfile lost" + old
	s := stack(t, tree, tree)
	set := func(path, value string) {
		if err := unix.Setxattr(path, "security.capability", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	const none = "\x00\x00\x00\x02" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	const chown = "\x00\x00\x00\x02" + "\x01\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	lower, upper := s.Spec.Lower[0], s.Spec.Upper
	set(lower+"/changed", none)
	set(upper+"/changed", chown)
	set(lower+"/same", chown)
	set(upper+"/same", chown)
	set(lower+"/lost", chown)
	if got, want := text(t, s), "C /changed\nC /lost\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestNoUpper(t *testing.T) {
	s := openStack(t, layer.Spec{Lower: testfs.Layers(t, 1)})
	if changes, err := Changes(s); changes == nil || len(changes) > 0 || err != nil {
		t.Errorf("Changes = %#v, %v, want an empty list", changes, err)
	}
}

func TestRenamedDirectories(t *testing.T) {
	for _, test := range []struct {
		name, upper string
		redirects   map[string]string
		lowers      []string
		want        string
	}{
		{
			"in its directory", "dir d\nwhiteout e", map[string]string{"d": "e"},
			[]string{"dir e\nfile e/f\ndir e/sub\nfile e/sub/g"},
			"A /d\nA /d/f\nA /d/sub\nA /d/sub/g\nD /e\n",
		},
		{
			"to another directory, with changes", "dir a" + old + "\ndir a/d\nfile a/d/new\nwhiteout a/d/f\nwhiteout e", map[string]string{"a/d": "/e"},
			[]string{"dir a" + old, "dir e\nfile e/f\nfile e/g"},
			"C /a\nA /a/d\nA /a/d/g\nA /a/d/new\nD /e\n",
		},
		{
			"over another one", "dir d\nwhiteout e", map[string]string{"d": "e"},
			[]string{"dir d\nfile d/gone\nfile d/same" + old + "\ndir e\nfile e/f\nfile e/same" + old},
			"C /d\nA /d/f\nD /d/gone\nD /e\n",
		},
		{
			"twice, in two layers", "dir c\nwhiteout b", map[string]string{"c": "b"},
			[]string{"dir b\nwhiteout a", "dir a\nfile a/f"},
			"A /c\nA /c/f\nD /b\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := stack(t, test.upper, test.lowers...)
			for path, target := range test.redirects {
				if err := unix.Setxattr(s.Spec.Upper+"/"+path, "trusted.overlay.redirect", []byte(target), 0); err != nil {
					t.Fatal(err)
				}
			}
			if test.name == "twice, in two layers" {
				if err := unix.Setxattr(s.Spec.Lower[0]+"/b", "trusted.overlay.redirect", []byte("a"), 0); err != nil {
					t.Fatal(err)
				}
			}
			if got := sorted(text(t, s)); got != sorted(test.want) {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

func sorted(lines string) string {
	list := strings.SplitAfter(lines, "\n")
	slices.Sort(list)
	return strings.Join(list, "")
}

func TestRedirectIsRefused(t *testing.T) {
	s := stack(t, "dir d", "dir e\nfile e/f")
	if err := unix.Setxattr(s.Spec.Upper+"/d", "trusted.overlay.redirect", []byte("e"), 0); err != nil {
		t.Fatal(err)
	}
	s.Spec.Options.RedirectDir = layer.RedirectNoFollow
	if changes, err := Changes(s); !errors.Is(err, unix.EPERM) {
		t.Errorf("Changes = %v, %v, want EPERM, as the union says", changes, err)
	}
}

func TestErrorNamesPath(t *testing.T) {
	s := stack(t, "dir d\ndir d/tmpfs", "")
	inside := filepath.Join(s.Spec.Upper, "d/tmpfs")
	if err := unix.Mount("x", inside, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(inside, 0)
	if _, err := Changes(s); err == nil || !strings.Contains(err.Error(), `"/d/tmpfs"`) {
		t.Errorf("error %v, want one that names /d/tmpfs", err)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal([]Change{{Deleted, "/bin/tar"}})
	if want := `[{"kind":"D","path":"/bin/tar"}]`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

// Descriptors are closed on the way, also where many directories are deep.
func TestDescriptors(t *testing.T) {
	var tree strings.Builder
	for i := range 20 {
		dir := fmt.Sprintf("d%d", i)
		for range 10 {
			fmt.Fprintf(&tree, "dir %s\nfile %s/f\n", dir, dir)
			dir += "/d"
		}
	}
	s := stack(t, tree.String(), tree.String(), tree.String())
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := open()
	text(t, s)
	if now := open(); now != before {
		t.Errorf("%d descriptors are open, %d were before", now, before)
	}
}

func TestAUFSMarks(t *testing.T) {
	s := stack(t, `
		file .wh.gone
		file .wh.never
		file .wh..wh.plnk
		dir d
		file d/.wh..wh..opq
		file d/new
		file .wh.again
		dir again
		file again/new`, `
		file .wh.hidden
		dir m
		file m/.wh.x`, `
		file gone
		file hidden
		dir d
		file d/old
		dir again
		file again/old
		dir m
		file m/x`)
	const plain = "A /.wh..wh.plnk\nA /.wh.again\nA /.wh.gone\nA /.wh.never\nC /again\nA /again/new\nC /d\nA /d/.wh..wh..opq\nA /d/new\n"
	if got := text(t, s); got != plain {
		t.Errorf("without the option:\n%s", testfs.Diff(plain, got))
	}
	s.Spec.Options.FUSE.AUFSMarks = true
	const want = "C /again\nA /again/new\nD /again/old\nC /d\nA /d/new\nD /d/old\nD /gone\n"
	if got := text(t, s); got != want {
		t.Errorf("with the option:\n%s", testfs.Diff(want, got))
	}
}
