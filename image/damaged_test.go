package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/unionfsd/unionfsd/image/layertar"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// layoutOf is an OCI image layout of two layers as files, and what its index and its manifest say. A test changes these, and
// the digests of what is changed are made right again, but for those that the test is about.
type layoutOf struct {
	index    v1.IndexManifest
	manifest v1.Manifest
	config   v1.ConfigFile
	layers   [2][]byte
	files    map[string][]byte // beside those, or in their place
}

func goodLayout(t *testing.T) *layoutOf {
	l := &layoutOf{files: map[string][]byte{}}
	l.config = v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	l.manifest = v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, plain := range [][]byte{layerTar(t, "one", "1"), layerTar(t, "two", strings.Repeat("2", 4096))} {
		l.layers[i] = compressed(t, Gzip, plain)
		l.config.RootFS.DiffIDs = append(l.config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: hash(plain)})
		l.manifest.Layers = append(l.manifest.Layers, descriptor(types.OCILayer, l.layers[i]))
	}
	return l
}

func descriptor(m types.MediaType, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: m, Size: int64(len(data)), Digest: v1.Hash{Algorithm: "sha256", Hex: hash(data)}}
}

func text(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write writes the layout; change, if not nil, is called when the descriptors of config and manifest are known.
func (l *layoutOf) write(t *testing.T, dir string, change func(l *layoutOf)) {
	t.Helper()
	blob := func(data []byte) string { return "blobs/sha256/" + hash(data) }
	files := map[string][]byte{}
	config := text(t, l.config)
	if l.manifest.Config.Size == 0 {
		l.manifest.Config = descriptor(types.OCIConfigJSON, config)
	}
	files[blob(config)] = config
	for _, data := range l.layers {
		files[blob(data)] = data
	}
	manifest := text(t, l.manifest)
	files[blob(manifest)] = manifest
	l.index = v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{descriptor(types.OCIManifestSchema1, manifest)}}
	l.index.Manifests[0].Annotations = map[string]string{noteName: "app:1"}
	if change != nil {
		change(l)
	}
	files["index.json"] = text(t, l.index)
	for name, data := range l.files {
		files[name] = data
	}
	for name, data := range files {
		if data == nil {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// flipped is data with one bit that is not as it was.
func flipped(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// TestDamagedLayout checks that what is wrong in an OCI image layout is refused with an error, and leaves nothing.
func TestDamagedLayout(t *testing.T) {
	inBlob := func(h v1.Hash) string { return "blobs/sha256/" + h.Hex }
	tests := []struct {
		name   string
		before func(t *testing.T, l *layoutOf) // what digests are made for
		after  func(l *layoutOf)               // what they are not
		o      Options
		err    string
	}{
		{name: "a bit of the manifest", after: func(l *layoutOf) {
			m := l.index.Manifests[0].Digest
			l.files[inBlob(m)] = flipped(mustJSON(l.manifest))
		}, err: "damaged"},
		{name: "a bit of the config", after: func(l *layoutOf) { l.files[inBlob(l.manifest.Config.Digest)] = flipped(mustJSON(l.config)) }, err: "damaged"},
		{name: "a bit of the lower layer", after: func(l *layoutOf) { l.files[inBlob(l.manifest.Layers[0].Digest)] = flipped(l.layers[0]) }, err: "damaged"},
		{name: "a bit of the upper layer", after: func(l *layoutOf) { l.files[inBlob(l.manifest.Layers[1].Digest)] = flipped(l.layers[1]) }, err: "damaged"},
		{name: "a layer is cut off", after: func(l *layoutOf) { l.files[inBlob(l.manifest.Layers[0].Digest)] = l.layers[0][:40] }, err: "damaged"},
		{name: "a layer goes on", after: func(l *layoutOf) {
			l.files[inBlob(l.manifest.Layers[0].Digest)] = append(bytes.Clone(l.layers[0]), 0)
		}, err: "damaged"},
		{name: "one layer for the other", after: func(l *layoutOf) { l.files[inBlob(l.manifest.Layers[0].Digest)] = l.layers[1] }, err: "damaged"},
		{name: "a manifest that is not there", after: func(l *layoutOf) { l.index.Manifests[0].Digest.Hex = strings.Repeat("0", 64) }, err: "no such file"},
		{name: "the size of the manifest", after: func(l *layoutOf) { l.index.Manifests[0].Size++ }, err: "has not the size"},
		{name: "a size below zero", after: func(l *layoutOf) { l.index.Manifests[0].Size = -1 }, err: "has not the size"},
		{name: "the size of a layer", before: func(_ *testing.T, l *layoutOf) { l.manifest.Layers[1].Size-- }, err: "has not the size"},
		{name: "a layer of a size below zero", before: func(_ *testing.T, l *layoutOf) { l.manifest.Layers[1].Size = -5 }, err: "has not the size"},
		{name: "layers in the wrong order", before: func(_ *testing.T, l *layoutOf) {
			l.manifest.Layers[0], l.manifest.Layers[1] = l.manifest.Layers[1], l.manifest.Layers[0]
		}, err: "damaged"},
		{name: "one layer too few", before: func(_ *testing.T, l *layoutOf) { l.manifest.Layers = l.manifest.Layers[:1] }, err: "not an image of a file system"},
		{name: "no layers", before: func(_ *testing.T, l *layoutOf) { l.manifest.Layers, l.config.RootFS.DiffIDs = nil, nil }, err: "not an image of a file system"},
		{name: "another diff id", before: func(_ *testing.T, l *layoutOf) { l.config.RootFS.DiffIDs[1] = l.config.RootFS.DiffIDs[0] }, err: "damaged"},
		{name: "a layer of another type", before: func(_ *testing.T, l *layoutOf) { l.manifest.Layers[0].MediaType = "application/zip" }, err: "not known"},
		{name: "a layer that is elsewhere", before: func(_ *testing.T, l *layoutOf) {
			l.manifest.Layers[0].MediaType = types.OCIUncompressedRestrictedLayer
		}, err: "not known"},
		{name: "a manifest of another type", after: func(l *layoutOf) { l.index.Manifests[0].MediaType = "text/html" }, err: "not that of an image"},
		{name: "a config that is none", before: func(_ *testing.T, l *layoutOf) {
			l.manifest.Config = descriptor(types.OCIConfigJSON, []byte("[]"))
			l.files[inBlob(l.manifest.Config.Digest)] = []byte("[]")
		}, err: "config"},
		{name: "a config that is too large", before: func(_ *testing.T, l *layoutOf) {
			data := bytes.Repeat([]byte(" "), maxJSON+1)
			l.manifest.Config = descriptor(types.OCIConfigJSON, data)
			l.files[inBlob(l.manifest.Config.Digest)] = data
		}, err: "more than"},
		{name: "an index that is none", after: func(l *layoutOf) { l.files["index.json"] = []byte("no") }, err: "index.json"},
		{name: "a bomb of gzip", before: func(t *testing.T, l *layoutOf) { l.replace(t, layerTar(t, "f", strings.Repeat("0", 8<<20)), Gzip) },
			o: Options{Limits: layertar.Limits{Bytes: 1 << 20}}, err: "larger than the limit"},
		{name: "a bomb of zstd", before: func(t *testing.T, l *layoutOf) { l.replace(t, layerTar(t, "f", strings.Repeat("0", 8<<20)), Zstd) },
			o: Options{Limits: layertar.Limits{Bytes: 1 << 20}}, err: "larger than the limit"},
		{name: "a bomb behind the archive", before: func(t *testing.T, l *layoutOf) {
			l.replace(t, append(layerTar(t, "f", "1"), make([]byte, 8<<20)...), Gzip)
		}, o: Options{Limits: layertar.Limits{Bytes: 1 << 20}}, err: "more behind the archive"},
		{name: "too many files", before: func(t *testing.T, l *layoutOf) {
			files := map[string]string{}
			for i := range 100 {
				files[string(rune('a'+i%26))+strings.Repeat("x", i)] = ""
			}
			l.replace(t, tarOf(t, files), Gzip)
		}, o: Options{Limits: layertar.Limits{Entries: 50}}, err: "more than 50 entries"},
		{name: "a name that leads out", before: func(t *testing.T, l *layoutOf) { l.replace(t, layerTar(t, "../../../../tmp/out", "x"), Gzip) }, err: "out of the archive"},
		{name: "a name that is no whiteout", before: func(t *testing.T, l *layoutOf) { l.replace(t, layerTar(t, "d/.wh...", ""), Gzip) }, err: "named as a whiteout"},
		{name: "a hard link to nothing", before: func(t *testing.T, l *layoutOf) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "none"}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			l.replace(t, b.Bytes(), Gzip)
		}, err: "neither the layer nor those below it have that file"},
		{name: "two streams of gzip, the second one cut off", before: func(t *testing.T, l *layoutOf) {
			plain := layerTar(t, "f", "1")
			data := append(compressed(t, Gzip, plain[:512]), compressed(t, Gzip, plain[512:])...)
			l.replaceBlob(plain, data[:len(data)-9], Gzip)
		}, err: "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			first, _ := dockerArchive(t, "good:1", layerTar(t, "good", "g"))
			if _, err := s.Load(context.Background(), bytes.NewReader(first), Options{}); err != nil {
				t.Fatal(err)
			}
			before := content(t, s)
			l := goodLayout(t)
			if tt.before != nil {
				tt.before(t, l)
			}
			dir := t.TempDir()
			l.write(t, dir, tt.after)
			_, err := s.LoadDir(context.Background(), dir, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if d := testfs.Diff(before, content(t, s)); d != "" {
				t.Errorf("left in the store:\n%s", d)
			}
		})
	}
	t.Run("nothing wrong", func(t *testing.T) {
		s, dir := testStore(t), t.TempDir()
		goodLayout(t).write(t, dir, nil)
		if names, err := s.LoadDir(context.Background(), dir, Options{}); err != nil || len(names) != 1 || names[0] != "app:1" {
			t.Errorf("%q, %v", names, err)
		}
	})
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// replace puts another archive in the place of the upper layer.
func (l *layoutOf) replace(t *testing.T, plain []byte, c Compression) {
	t.Helper()
	l.replaceBlob(plain, compressed(t, c, plain), c)
}

func (l *layoutOf) replaceBlob(plain, data []byte, c Compression) {
	l.layers[1] = data
	l.manifest.Layers[1] = descriptor(c.mediaType(), data)
	l.config.RootFS.DiffIDs[1].Hex = hash(plain)
}

// TestManyEntries checks that a layer of ten million entries is refused when it comes to the limit, before the rest is read.
func TestManyEntries(t *testing.T) {
	testfs.NeedRoot(t)
	r, w := io.Pipe()
	written, done := 0, make(chan bool)
	go func() {
		defer close(done)
		a := tar.NewWriter(w)
		for ; written < 10_000_000; written++ {
			if err := a.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644}); err != nil {
				return
			}
		}
		w.Close()
	}()
	dir, err := os.Open(testfs.Layers(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = layertar.Unpack(context.Background(), int(dir.Fd()), r, layertar.Options{Limits: layertar.Limits{Entries: 5000}})
	r.Close()
	<-done
	if err == nil || !strings.Contains(err.Error(), "more than 5000 entries") {
		t.Errorf("error %v", err)
	}
	if written > 6000 {
		t.Errorf("read %d entries", written)
	}
}
