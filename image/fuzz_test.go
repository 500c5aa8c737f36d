package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unionfsd/unionfsd/image/layertar"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// FuzzLoad loads archives with any manifest, index, config and layer: what is refused leaves nothing, what is loaded is whole.
// @DIFF@, @CONFIG@ and @LAYER@ stand for the digests, which nobody would hit at random, and @CS@ and @LS@ for the sizes.
func FuzzLoad(f *testing.F) {
	const config = `{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["sh"],"Volumes":{"/x":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:@DIFF@"]},"history":[{"created_by":"x"},{"empty_layer":true}]}`
	layer := tarOf(f, map[string]string{"a/f": "x", ".wh.b": ""})
	f.Add([]byte(`[{"Config":"config","RepoTags":["app:1"],"Layers":["layer"]}]`), []byte{}, []byte(config), layer)
	f.Add([]byte(`[{"Config":"blobs/sha256/@CONFIG@","RepoTags":null,"Layers":["link"]},{"Config":"config","Layers":["./x/../layer"]}]`), []byte{}, []byte(config), layer)
	f.Add([]byte{}, []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":@MS@,"digest":"sha256:@MANIFEST@","annotations":{"org.opencontainers.image.ref.name":"app"}}]}`), []byte(config), layer)
	testfs.NeedRoot(f)
	dir := testfs.Tmpfs(f)
	f.Fuzz(func(t *testing.T, manifest, index, config, layer []byte) {
		root := filepath.Join(dir, "state")
		defer os.RemoveAll(root)
		s := At(root)
		fill := func(text []byte, pairs ...string) []byte {
			return []byte(strings.NewReplacer(pairs...).Replace(string(text)))
		}
		config = fill(config, "@DIFF@", hash(layer))
		m := fill([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":@CS@,"digest":"sha256:@CONFIG@"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":@LS@,"digest":"sha256:@LAYER@"}]}`),
			"@CONFIG@", hash(config), "@CS@", size(config), "@LAYER@", hash(layer), "@LS@", size(layer))
		files := map[string]string{"config": string(config), "layer": string(layer), "blobs/sha256/" + hash(config): string(config),
			"blobs/sha256/" + hash(layer): string(layer), "blobs/sha256/" + hash(m): string(m)}
		if len(manifest) > 0 {
			files["manifest.json"] = string(fill(manifest, "@CONFIG@", hash(config)))
		}
		if len(index) > 0 {
			files["index.json"] = string(fill(index, "@MANIFEST@", hash(m), "@MS@", size(m)))
		}
		names, err := s.Load(context.Background(), bytes.NewReader(tarOf(t, files)), Options{Limits: layertar.Limits{Bytes: 1 << 20, Entries: 1000}})
		images, ierr := s.Images()
		if ierr != nil {
			t.Fatal(ierr)
		}
		if err != nil && len(images) > 0 {
			t.Errorf("%v, and there are %d images", err, len(images))
		}
		if err == nil && (len(images) == 0 || len(names) == 0) {
			t.Error("loaded, and there is no image")
		}
		for _, img := range images {
			if _, err := img.Dirs(); err != nil {
				t.Error(err)
			}
		}
		if left, _ := os.ReadDir(s.incoming()); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if left, _ := os.ReadDir(dir); len(left) > 1 {
			t.Errorf("outside the store: %v", left)
		}
	})
}

func size(b []byte) string { return strconv.Itoa(len(b)) }
