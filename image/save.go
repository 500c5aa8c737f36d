package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Save writes images as an archive that is both: an OCI image layout, and what docker load reads. All blobs are as they
// came. The names in it are those in [Image.Names].
func (s *Store) Save(w io.Writer, images []*Image) error {
	out := tar.NewWriter(w)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	docker := []dockerImage{}
	var blobs []v1.Descriptor
	for _, img := range images {
		m := img.descriptor
		m.Annotations = nil
		di := dockerImage{Config: blobName(img.Manifest.Config.Digest), RepoTags: []string{}}
		blobs = append(append(blobs, m, img.Manifest.Config), img.Manifest.Layers...)
		for _, l := range img.Manifest.Layers {
			di.Layers = append(di.Layers, blobName(l.Digest))
		}
		for _, name := range img.Names {
			di.RepoTags = append(di.RepoTags, ShortName(name))
			named := m
			named.Annotations = map[string]string{"io.containerd.image.name": name, noteName: name[strings.LastIndexByte(name, ':')+1:]}
			index.Manifests = append(index.Manifests, named)
		}
		if len(img.Names) == 0 {
			index.Manifests = append(index.Manifests, m)
		}
		docker = append(docker, di)
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}}, {"index.json", index}, {"manifest.json", docker}} {
		text, err := json.Marshal(f.v)
		if err == nil {
			err = writeEntry(out, f.name, text)
		}
		if err != nil {
			return err
		}
	}
	var written []v1.Hash
	for _, b := range blobs {
		if slices.Contains(written, b.Digest) {
			continue
		}
		written = append(written, b.Digest)
		if err := s.saveBlob(out, b); err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
	}
	return out.Close()
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func writeEntry(w *tar.Writer, name string, text []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}

func (s *Store) saveBlob(w *tar.Writer, b v1.Descriptor) error {
	f, err := os.Open(s.blobPath(b.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(&tar.Header{Name: blobName(b.Digest), Mode: 0o644, Size: b.Size}); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, b.Size)
	return err
}
