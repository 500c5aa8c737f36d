package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// archive is the text of a tree, in the words of [testfs.Tree], as a tar archive: entries in the order of the text.
func archive(t testing.TB, text string) []byte {
	t.Helper()
	tree, err := testfs.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range tree {
		types := map[testfs.Kind]byte{testfs.Dir: tar.TypeDir, testfs.File: tar.TypeReg, testfs.Symlink: tar.TypeSymlink,
			testfs.Hardlink: tar.TypeLink, testfs.Fifo: tar.TypeFifo, testfs.Char: tar.TypeChar, testfs.Block: tar.TypeBlock}
		h := &tar.Header{Typeflag: types[e.Kind], Name: e.Path, Linkname: e.Target, Mode: int64(e.Mode), Uid: int(e.UID),
			Gid: int(e.GID), Devmajor: int64(e.Major), Devminor: int64(e.Minor), ModTime: e.MTime, Size: e.Size,
			PAXRecords: map[string]string{}, Format: tar.FormatPAX}
		for name, value := range e.Xattrs {
			h.PAXRecords[xattrPrefix+name] = value
		}
		data := make([]byte, e.Size)
		for _, x := range e.Data {
			copy(data[x.Off:], x.Data)
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var trusted = layer.NewXattrNames(false)

// unpack unpacks an archive in dir.
func unpack(t testing.TB, dir string, archive []byte, o Options) (Contents, error) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return Unpack(context.Background(), fd, bytes.NewReader(archive), o)
}

func layerDir(t testing.TB) string {
	testfs.NeedRoot(t) // whiteouts and owners
	return testfs.Layers(t, 1)[0]
}

func TestUnpack(t *testing.T) {
	tests := []struct {
		name, archive, layer string
		implied              []string
		foreign              []Link
	}{
		{name: "all kinds", archive: `
			dir ./ mode=0750 owner=3:4
			dir a mode=2755 owner=1:2 mtime=1600000000
			file a/f "data" mode=4711 owner=1000:1000 mtime=1600000001 user.comment="x"
			hardlink a/g -> a/f
			symlink a/s -> ../elsewhere
			fifo a/p
			char a/null 1:3 mode=0666
			block a/disk 8:1 mode=0660 owner=0:6`, layer: `
			dir . mode=0750 owner=3:4
			dir a mode=2755 owner=1:2
			file a/f "data" mode=4711 owner=1000:1000 nlink=2 user.comment="x"
			hardlink a/g -> a/f
			symlink a/s -> ../elsewhere
			fifo a/p
			char a/null 1:3 mode=0666
			block a/disk 8:1 mode=0660 owner=0:6`},
		{name: "whiteout", archive: `
			dir bin
			file bin/.wh.tar`, layer: `
			dir bin
			whiteout bin/tar`},
		{name: "opaque", archive: `
			dir d
			file d/.wh..wh..opq
			file d/f`, layer: `
			dir d opaque
			file d/f`},
		{name: "opaque after what is in it", archive: `
			dir d
			file d/f
			file d/.wh..wh..opq`, layer: `
			dir d opaque
			file d/f`},
		{name: "whiteouts that hide nothing are dropped", archive: `
			dir d
			dir d/e
			file d/.wh.a
			file d/e/.wh.b
			file d/.wh..wh..opq
			file .wh.c`, layer: `
			dir d opaque
			dir d/e
			whiteout c`},
		{name: "file and whiteout of one name", archive: `
			file a "new"
			file .wh.a
			file .wh.b
			file b "new"`, layer: `
			file a "new"
			file b "new"`},
		{name: "directory and whiteout of one name", archive: `
			dir a
			file .wh.a
			file .wh.b
			dir b
			file .wh.c
			file c/f`, layer: `
			dir a opaque
			dir b opaque
			dir c opaque
			file c/f`},
		{name: "whiteout as hard link, as AUFS wrote them", archive: `
			file .wh..wh.plnk
			hardlink .wh.a -> .wh..wh.plnk`, layer: `
			whiteout a`},
		{name: "the later of two entries counts", archive: `
			dir d
			file d/f "old"
			file d/f "new" mode=0600
			dir e
			file e/f
			file e "now a file"
			symlink s -> d
			dir s mode=0700
			dir d mode=0711`, layer: `
			dir d mode=0711
			file d/f "new" mode=0600
			file e "now a file"
			dir s mode=0700`},
		{name: "missing directories", archive: `
			file a/b/c/f
			dir a/b mode=0700
			file x/.wh.y`, layer: `
			dir a
			dir a/b mode=0700
			dir a/b/c
			file a/b/c/f
			dir x
			whiteout x/y`,
			implied: []string{"a", "a/b/c", "x"}},
		{name: "an implied directory that goes", archive: `
			file a/b/f
			file a "file"`, layer: `
			file a "file"`},
		{name: "hard link to another layer", archive: `
			dir d
			hardlink d/f -> usr/bin/x`, layer: `
			dir d`,
			foreign: []Link{{"d/f", "usr/bin/x"}}},
		{name: "hard link to itself", archive: `
			file f "kept"
			hardlink f -> ./f`, layer: `
			file f "kept"`},
		{name: "attributes that are marks below", archive: `
			dir d trusted.overlay.opaque="y" user.overlay.origin="mine" security.selinux="host"`, layer: `
			dir d trusted.overlay.overlay.opaque="y" user.overlay.origin="mine"`},
		{name: "attributes of what can have none", archive: `
			symlink s -> t user.comment="x"`, layer: `
			symlink s -> t`},
		{name: "names that begin with a slash", archive: `
			dir /etc
			file /etc//./passwd "root"`, layer: `
			dir etc
			file etc/passwd "root"`},
		{name: "names that stay inside", archive: `
			dir a
			file a/../b "b"`, layer: `
			dir a
			file b "b"`},
		{name: "what directories hand on is not what the archive says", archive: `
			dir ./ mode=2750 owner=3:4
			file f
			dir d mode=2775 owner=0:5
			file d/f
			dir d/e
			dir acl mode=0750 system.posix_acl_default="\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x00\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
			file acl/f mode=0666
			dir acl/d mode=0777`, layer: `
			dir . mode=2750 owner=3:4
			file f
			dir d mode=2775 owner=0:5
			file d/f
			dir d/e
			dir acl mode=0750 system.posix_acl_default="\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x00\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
			file acl/f mode=0666
			dir acl/d mode=0777`},
		{name: "set-id and capabilities survive the owner", archive: `
			file f "x" mode=6755 owner=7:8 security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`, layer: `
			file f "x" mode=6755 owner=7:8 security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := layerDir(t)
			contents, err := unpack(t, dir, archive(t, tt.archive), Options{Xattr: trusted})
			if err != nil {
				t.Fatal(err)
			}
			want, err := testfs.Canonical(tt.layer)
			if err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(want, testfs.Fingerprint(dir, testfs.Options{Layer: true})); d != "" {
				t.Errorf("layer:\n%s", d)
			}
			if !equal(contents.Implied, tt.implied) || !equal(contents.Foreign, tt.foreign) {
				t.Errorf("implied %q, foreign %q; want %q, %q", contents.Implied, contents.Foreign, tt.implied, tt.foreign)
			}
		})
	}
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestUnpackTimes checks that directories have their own times, not those of the last entry in them.
func TestUnpackTimes(t *testing.T) {
	dir := layerDir(t)
	const text = `
		dir d mtime=1500000000
		file d/f "x" mtime=1600000000.5
		symlink d/s -> f mtime=1400000000`
	if _, err := unpack(t, dir, archive(t, text), Options{Xattr: trusted}); err != nil {
		t.Fatal(err)
	}
	want, _ := testfs.Canonical(text)
	got := testfs.Read(dir, testfs.Options{Layer: true, Since: time.Unix(1700000000, 0)})[1:].String() // without the root
	if d := testfs.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestPack checks that what Pack writes of layers is the union of what they were unpacked from.
func TestPack(t *testing.T) {
	tests := []struct {
		name   string
		o      PackOptions
		layers []string // the topmost first
		want   string
	}{
		{"one layer", PackOptions{Changes: true}, []string{`
			dir bin
			whiteout bin/tar
			file bin/a "a" mode=0755 owner=1:2
			dir etc opaque
			file etc/x user.comment="x" trusted.overlay.overlay.opaque="y"
			hardlink link -> bin/a
			symlink s -> t
			fifo p
			char null 1:3`}, `
			dir bin
			whiteout bin/tar
			file bin/a "a" mode=0755 owner=1:2 nlink=2
			dir etc opaque
			file etc/x user.comment="x" trusted.overlay.overlay.opaque="y"
			hardlink link -> bin/a
			symlink s -> t
			fifo p
			char null 1:3`},
		{"a whole system", PackOptions{}, []string{`
			dir a opaque
			file a/new
			whiteout b
			dir c
			whiteout c/gone`, `
			dir a
			file a/old
			file b
			dir c mode=0700
			file c/gone
			file c/kept "c"
			file d "d"`}, `
			dir a
			file a/new
			dir c
			file c/kept "c"
			file d "d"`},
		{"an opaque root hides nothing", PackOptions{Changes: true, Base: 1}, []string{
			"dir . opaque\nfile a", "file b"}, "file a"},
		{"several layers as one", PackOptions{Changes: true}, []string{`
			dir a
			file a/new
			whiteout b
			dir c
			file c/f
			whiteout x/gone
			dir e`, `
			dir a opaque
			file a/old
			file b
			file c "a file hides what is below"
			dir x
			file x/gone
			whiteout y
			whiteout e`}, `
			dir a opaque
			file a/new
			file a/old
			whiteout b
			dir c opaque
			file c/f
			dir x
			whiteout x/gone
			whiteout y
			dir e opaque`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			testfs.NeedRoot(t)
			dirs := testfs.Layers(t, len(tt.layers)+1)
			out := dirs[len(tt.layers)]
			for i, text := range tt.layers {
				if i == 0 && tt.name == "several layers as one" {
					text = "dir x\n" + text
				}
				testfs.Write(t, dirs[i], text)
			}
			packed := pack(t, dirs[:len(tt.layers)], tt.o)
			if again := pack(t, dirs[:len(tt.layers)], tt.o); !bytes.Equal(packed, again) {
				t.Error("the second archive of the same layers is not the first")
			}
			if _, err := unpack(t, out, packed, Options{Xattr: trusted}); err != nil {
				t.Fatal(err)
			}
			want, err := testfs.Canonical(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(want, testfs.Fingerprint(out, testfs.Options{Layer: true})); d != "" {
				t.Error(d)
			}
		})
	}
}

func pack(t testing.TB, dirs []string, o PackOptions) []byte {
	t.Helper()
	return packUnion(t, layer.Spec{Lower: dirs}, o)
}

func packUnion(t testing.TB, spec layer.Spec, o PackOptions) []byte {
	t.Helper()
	s, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b bytes.Buffer
	if err := Pack(context.Background(), &b, s, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPackRoot checks that the root directory is among changes if it is not as it was.
func TestPackRoot(t *testing.T) {
	testfs.NeedRoot(t)
	for text, want := range map[string]string{
		"dir . mode=0750\nfile f":                   "f",
		"dir . mode=0700\nfile f":                   "./ f",
		"dir . mode=0750 owner=1:0\nfile f":         "./ f",
		"dir . mode=0750 user.comment=\"\"\nfile f": "./ f",
	} {
		dirs := testfs.Layers(t, 2)
		testfs.Write(t, dirs[0], text)
		testfs.Write(t, dirs[1], "dir . mode=0750")
		r := tar.NewReader(bytes.NewReader(pack(t, dirs, PackOptions{Changes: true, Base: 1})))
		var names []string
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: entries %q, want %q", text, got, want)
		}
	}
}

// TestPackRefuses checks that what is not all in the layers is not packed as if it were.
func TestPackRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`dir d redirect=other`:    "redirect_dir=",
		`file f size=10 metacopy`: "metacopy=on",
		`file .wh.x`:              "whiteout",
	} {
		dirs := testfs.Layers(t, 2)
		testfs.NeedRoot(t)
		testfs.Write(t, dirs[0], text)
		s, err := layer.OpenReadOnly(layer.Spec{Lower: dirs, Options: layer.Options{RedirectDir: layer.RedirectNoFollow}})
		if err != nil {
			t.Fatal(err)
		}
		if err := Pack(context.Background(), &bytes.Buffer{}, s, PackOptions{Changes: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
		s.Close()
	}
}

// outside makes a directory with a layer in it and what a hostile archive may want to get at beside it.
func outside(t testing.TB) (layer, text string) {
	return outsideIn(t, layerDir(t))
}

func outsideIn(t testing.TB, top string) (layer, text string) {
	testfs.Write(t, top, `
		dir layer
		file passwd "root" mode=0600
		dir victim
		file victim/f "untouched" mode=0640`)
	return filepath.Join(top, "layer"), testfs.Fingerprint(top, testfs.Options{})
}

// untouched fails the test if anything but the layer has changed.
func untouched(t testing.TB, layer, text string) {
	t.Helper()
	if err := os.RemoveAll(layer); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(layer, 0o755); err != nil {
		t.Error(err)
	}
	if d := testfs.Diff(text, testfs.Fingerprint(filepath.Dir(layer), testfs.Options{})); d != "" {
		t.Errorf("outside the layer:\n%s", d)
	}
}
