package layertar

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

// TestComplete checks what an image shows whose upper layer depends on the lower one: as if its archive had been unpacked
// over it.
func TestComplete(t *testing.T) {
	tests := []struct {
		name, lower, archive string
		want                 string // what the union of all shows
		err                  string
	}{
		{name: "nothing to be done", lower: "dir . mode=0755\ndir a", archive: "dir a mode=0700\nfile a/f",
			want: "dir a mode=0700\nfile a/f"},
		{name: "implied directories", lower: `
			dir . mode=0750 owner=8:9
			dir a mode=0711 owner=1:2 user.comment="a"
			dir a/b mode=1777
			file a/b/old`, archive: `
			file a/b/new
			file a/b/own/new`, want: `
			dir . mode=0750 owner=8:9
			dir a mode=0711 owner=1:2 user.comment="a"
			dir a/b mode=1777
			file a/b/old
			file a/b/new
			dir a/b/own
			file a/b/own/new`},
		{name: "an implied directory in one that is told of", lower: "dir a mode=0700\ndir a/b mode=0700", archive: `
			dir ./ mode=0711
			dir a mode=0711
			file a/b/f`, want: `
			dir . mode=0711
			dir a mode=0711
			dir a/b mode=0700
			file a/b/f`},
		{name: "an implied directory over a symlink hides it, as in Docker", lower: "dir usr\ndir usr/lib\nsymlink lib -> usr/lib",
			archive: "file lib/f", want: "dir usr\ndir usr/lib\ndir lib\nfile lib/f"},
		{name: "an implied directory in an opaque one", lower: "dir a\ndir a/b mode=0700\nfile a/b/old", archive: `
			dir a
			file a/.wh..wh..opq
			file a/b/f`, want: "dir a\ndir a/b\nfile a/b/f"},
		{name: "an implied directory through a symlink", lower: "dir usr mode=0711\ndir usr/lib mode=0700", archive: `
			symlink lib -> usr/lib
			dir usr mode=0711
			file usr/lib/a
			file lib/x/f`, want: `
			symlink lib -> usr/lib
			dir usr mode=0711
			dir usr/lib mode=0700
			file usr/lib/a
			dir usr/lib/x
			file usr/lib/x/f`},
		{name: "hard link to a lower file", lower: `
			dir usr mode=0711 owner=3:4
			file usr/x "data" mode=4755 owner=1:1 user.comment="c"
			hardlink usr/y -> usr/x`, archive: `
			dir d mode=0700
			hardlink d/f -> usr/x
			hardlink d/g -> d/f`, want: `
			dir d mode=0700
			file d/f "data" mode=4755 owner=1:1 nlink=3 user.comment="c"
			hardlink d/g -> d/f
			dir usr mode=0711 owner=3:4
			hardlink usr/x -> d/f
			file usr/y "data" mode=4755 owner=1:1 user.comment="c" nlink=2`},
		{name: "hard links to two names of a lower file", lower: "file x \"data\"\nhardlink y -> x",
			archive: "hardlink a -> x\nhardlink b -> y", want: "file a \"data\" nlink=4\nhardlink b -> a\nhardlink x -> a\nhardlink y -> a"},
		{name: "hard link to a symlink", lower: "symlink s -> t", archive: "hardlink a -> s",
			want: "symlink a -> t nlink=2\nhardlink s -> a"},
		{name: "hard link to what is deleted then", lower: `file x "data"`, archive: "hardlink a -> x\nfile .wh.x",
			want: `file a "data"`},
		{name: "hard link to what becomes another one", lower: "file b \"b\"\nfile c \"c\"", archive: "hardlink a -> b\nhardlink b -> c",
			want: "file a \"b\"\nfile b \"c\" nlink=2\nhardlink c -> b"},
		{name: "hard link that something takes the place of", lower: `file x "data"`, archive: "hardlink a -> x\nfile a \"new\"",
			want: "file a \"new\"\nfile x \"data\""},
		{name: "hard link in the place of a file", lower: `file x "data"`, archive: "file a \"old\"\nhardlink a -> x",
			want: "file a \"data\" nlink=2\nhardlink x -> a"},
		{name: "hard link to nothing", lower: "dir d", archive: "hardlink a -> d/x", err: "neither the layer nor those below it have that file"},
		{name: "hard link to a lower directory", lower: "dir d", archive: "hardlink a -> d", err: "that is a directory"},
		{name: "hard link to what is hidden", lower: "dir d\nfile d/x", archive: "dir d\nfile d/.wh..wh..opq\nhardlink a -> d/x",
			want: "file a nlink=1\ndir d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			testfs.NeedRoot(t)
			dirs := testfs.Layers(t, 4)
			testfs.Write(t, dirs[1], tt.lower)
			contents, err := unpack(t, dirs[0], archive(t, tt.archive), Options{Xattr: trusted})
			if err != nil {
				t.Fatal(err)
			}
			stack, err := layer.Open(layer.Spec{Lower: dirs[:2], Upper: dirs[2], Work: dirs[3]})
			if err != nil {
				t.Fatal(err)
			}
			err = Complete(stack, contents, "diff")
			if cerr := stack.Close(); cerr != nil {
				t.Error(cerr)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			lower := dirs[:2]
			if lacks := filepath.Join(dirs[2], "diff"); unix.Access(lacks, unix.F_OK) == nil {
				lower = append([]string{lacks}, lower...)
			}
			want, err := testfs.Canonical(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if d := testfs.Diff(want, testfs.Fingerprint(testunion.Mount(t, layer.Spec{Lower: lower}), testfs.Options{})); d != "" {
				t.Error(d)
			}
		})
	}
}
