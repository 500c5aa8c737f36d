package layertar

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestHostile unpacks archives that were made to get out of the layer or to be taken for something else. Each either
// fails with an error, or does what it asks for in the layer; nothing happens outside.
func TestHostile(t *testing.T) {
	tests := []struct {
		name, archive string
		err           string // what the error says; empty: it is unpacked
		layer         string // what becomes of it then
	}{
		{name: "dot dot", archive: `file ../passwd "pwned"`, err: "out of the archive"},
		{name: "dot dot alone", archive: `dir .. mode=0777`, err: "out of the archive"},
		{name: "dot dot in the middle", archive: `file a/../../passwd "pwned"`, err: "out of the archive"},
		{name: "dot dot behind a slash", archive: `file /../passwd "pwned"`, err: "out of the archive"},
		{name: "dot dot in a directory", archive: "dir a\ndir a/../..", err: "out of the archive"},
		{name: "many dots", archive: `file ... "a name like others"`, layer: `file ... "a name like others"`},
		{name: "absolute symlink as a directory", archive: "symlink a -> /\nfile a/passwd \"mine\"",
			layer: "symlink a -> /\nfile passwd \"mine\""},
		{name: "relative symlink as a directory", archive: "symlink a -> ../../..\nfile a/passwd \"mine\"",
			layer: "symlink a -> ../../..\nfile passwd \"mine\""},
		{name: "symlink to what is outside", archive: "symlink a -> ../victim\nfile a/f \"pwned\"", err: "open its directory"},
		{name: "chain of symlinks", archive: "symlink a -> b\nsymlink b -> ..\nfile a/passwd \"mine\"",
			layer: "symlink a -> b\nsymlink b -> ..\nfile passwd \"mine\""},
		{name: "loop of symlinks", archive: "symlink a -> b\nsymlink b -> a\nfile a/f", err: "open its directory"},
		{name: "symlink to itself", archive: "symlink a -> a\nfile a/f", err: "open its directory"},
		{name: "magic link", archive: "symlink a -> /proc/self/root\nfile a/passwd", err: "open its directory"},
		{name: "file over a symlink", archive: "symlink passwd -> ../passwd\nfile passwd \"mine\"",
			layer: `file passwd "mine"`},
		{name: "directory over a symlink", archive: "symlink victim -> ../victim\ndir victim mode=0777\nfile victim/f \"mine\"",
			layer: "dir victim mode=0777\nfile victim/f \"mine\""},
		{name: "attributes through a symlink", archive: `symlink a -> ../passwd owner=5:5 mtime=1`,
			layer: `symlink a -> ../passwd owner=5:5`},
		{name: "hard link up", archive: `hardlink a -> ../passwd`, err: "out of the archive"},
		{name: "hard link from the root", archive: `hardlink a -> /passwd`}, // of another layer, as Foreign tells
		{name: "hard link through a symlink", archive: "symlink a -> ..\nhardlink b -> a/passwd"},
		{name: "hard link to a symlink, and over it", archive: "symlink a -> ../passwd\nhardlink b -> a\nfile b \"mine\"",
			layer: "symlink a -> ../passwd\nfile b \"mine\""},
		{name: "hard link up and down", archive: `hardlink a -> x/../../victim/f`, err: "out of the archive"},
		{name: "hard link to a directory", archive: "dir d\nhardlink e -> d", err: "not a file"},
		{name: "hard link to a whiteout", archive: "file .wh.a\nhardlink b -> a", err: "not a file"},
		{name: "hard link to the root", archive: `hardlink a -> .`},
		{name: "named by dot dot", archive: `hardlink ../a -> passwd`, err: "out of the archive"},
		{name: "below a file", archive: "file a\nfile a/b", err: "open its directory"},
		{name: "below a device", archive: "char a 1:3\nfile a/b", err: "open its directory"},
		{name: "the root as a file", archive: `file . "x"`, err: "root of a layer"},
		{name: "the root as a symlink", archive: `symlink ./ -> ../victim`, err: "root of a layer"},
		{name: "whiteout of nothing", archive: `file .wh.`, err: "named as a whiteout"},
		{name: "whiteout of dot", archive: `file .wh..`, err: "named as a whiteout"},
		{name: "whiteout of dot dot", archive: `file d/.wh...`, err: "named as a whiteout"},
		{name: "whiteout of a slash", archive: `file .wh./x`, err: "named as a whiteout"},
		{name: "directory named as a whiteout", archive: `dir .wh.d`, err: "named as a whiteout"},
		{name: "symlink named as a whiteout", archive: `symlink .wh.d -> x`, err: "named as a whiteout"},
		{name: "below a whiteout", archive: `file .wh.d/f`, err: "named as a whiteout"},
		{name: "whiteout up", archive: `file ../.wh.passwd`, err: "out of the archive"},
		{name: "whiteout through a symlink", archive: "symlink a -> ../victim\nfile a/.wh.f", err: "open its directory"},
		{name: "whiteout of what a symlink leads to", archive: "symlink passwd -> ../passwd\nfile .wh.passwd",
			layer: "symlink passwd -> ../passwd"},
		{name: "opaque through a symlink", archive: "symlink a -> ..\nfile a/.wh..wh..opq", layer: "dir . opaque\nsymlink a -> .."},
		{name: "overlayfs's whiteout", archive: `char a 0:0`, err: "takes a character device 0:0 for a whiteout"},
		{name: "overlayfs's marks", archive: "dir d trusted.overlay.redirect=\"/victim\"\nfile f trusted.overlay.metacopy=\"\"",
			layer: "dir d trusted.overlay.overlay.redirect=\"/victim\"\nfile f trusted.overlay.overlay.metacopy=\"\""},
		{name: "a name that is too long", archive: "file " + strings.Repeat("n", 256), err: "file name too long"},
		{name: "deep", archive: "dir " + strings.Repeat("d/", 3000), err: "file name too long"},
		{name: "owner that is nobody", archive: `file f owner=4294967295:0`, err: "owner"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			layer, before := outside(t)
			_, err := unpack(t, layer, archive(t, tt.archive), Options{Xattr: trusted})
			switch {
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want one with %q", err, tt.err)
			case tt.layer != "":
				want, _ := testfs.Canonical(tt.layer)
				if d := testfs.Diff(want, testfs.Fingerprint(layer, testfs.Options{Layer: true})); d != "" {
					t.Errorf("layer:\n%s", d)
				}
			}
			untouched(t, layer, before)
		})
	}
}

// TestLimits checks that an archive that asks for too much fails before it has it.
func TestLimits(t *testing.T) {
	many := strings.Builder{}
	for i := range 20 {
		fmt.Fprintf(&many, "dir d%d\n", i)
	}
	tests := []struct {
		name    string
		archive []byte
		limits  Limits
		err     string
	}{
		{"entries", archive(t, many.String()), Limits{Entries: 10}, "more than 10 entries"},
		{"entries of one name", bytes.Repeat(archive(t, "dir d user.a=\"b\"")[:1536], 20), Limits{Entries: 10}, "more than 10 entries"},
		{"bytes of the archive", archive(t, many.String()), Limits{Bytes: 4096}, "larger than the limit"},
		{"a file", archive(t, "file f size=8192"), Limits{Bytes: 4096}, "larger than the limit"},
		{"a file of holes", sparse(), Limits{Bytes: 1 << 20}, "larger than the limit"},
		{"cut off", archive(t, "file f size=8192")[:3000], Limits{}, "unexpected EOF"},
		{"rubbish", bytes.Repeat([]byte("no archive"), 200), Limits{}, "read archive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := layerDir(t)
			_, err := unpack(t, dir, tt.archive, Options{Xattr: trusted, Limits: tt.limits})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

// sparse is an archive of 2 KB with a file of 1 TiB, in the old format of GNU tar.
func sparse() []byte {
	b := make([]byte, 2048)
	copy(b, "huge")
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], "00000000000\x0000000000000\x00")
	b[156] = tar.TypeGNUSparse
	copy(b[257:], "ustar  \x00")
	copy(b[483:], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00")
	b[488] = 1 // base 256: 1<<48 bytes
	sum := 0
	copy(b[148:], "        ")
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// FuzzUnpack checks that no archive gets out of its layer.
func FuzzUnpack(f *testing.F) {
	for _, text := range []string{
		"dir a\nfile a/f \"x\"\nhardlink b -> a/f\nsymlink s -> ..\nfile s/x",
		"file .wh.a\ndir a\nfile a/.wh..wh..opq\nfile a/b/c",
		"file ../passwd",
		"char c 1:3\nfifo p\nfile a/.wh.b user.x=\"y\"",
		"dir ./ mode=2755\nsymlink a -> /victim\nfile a/f\nhardlink x -> a/f\ndir a\nfile .wh.x",
	} {
		f.Add(archive(f, text))
	}
	testfs.NeedRoot(f)
	layer, before := outsideIn(f, testfs.Tmpfs(f)) // one for all, since to mount one takes longer than to unpack
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = unpack(t, layer, checksummed(data), Options{Xattr: trusted, Limits: Limits{Bytes: 1 << 20, Entries: 1000}})
		untouched(t, layer, before)
	})
}

// checksummed puts the right checksums into what stands where the headers of an archive are: most of what is changed at random
// would fail for that alone.
func checksummed(data []byte) []byte {
	data = bytes.Clone(data)
	for at := 0; at+512 <= len(data); {
		h := data[at : at+512]
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		size, err := strconv.ParseInt(strings.Trim(string(h[124:136]), " \x00"), 8, 32)
		if err != nil || size < 0 {
			size = 0
		}
		at += 512 + int(size+511)/512*512
	}
	return data
}
