package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Load adds the images of an archive that docker save or another tool has written: a docker-archive, an oci-archive, or
// both in one, compressed or not. It returns their names, or ids where they have none.
func (s *Store) Load(ctx context.Context, r io.Reader, o Options) ([]string, error) {
	d, err := s.receive(o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	a, err := d.readArchive(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	if err := a.images(ctx); err != nil {
		return nil, err
	}
	return d.finish()
}

// LoadDir is Load for an OCI image layout in the directory dir.
func (s *Store) LoadDir(ctx context.Context, dir string, o Options) ([]string, error) {
	d, err := s.receive(o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, fmt.Errorf("%q is not an OCI image layout: %w", dir, err)
	}
	get := func(_ context.Context, want v1.Descriptor) error {
		if d.has(want.Digest) {
			return nil
		}
		f, err := os.Open(filepath.Join(dir, "blobs", want.Digest.Algorithm, want.Digest.Hex))
		if err != nil {
			return fmt.Errorf("blob %s: %w", want.Digest, err)
		}
		defer f.Close()
		return d.checked(f, want)
	}
	if err := d.layout(ctx, text, nil, get); err != nil {
		return nil, err
	}
	return d.finish()
}

// finish publishes and returns the names of what was added.
func (d *delivery) finish() ([]string, error) {
	if len(d.added) == 0 {
		return nil, errors.New("there is no image in it")
	}
	if err := d.publish(); err != nil {
		return nil, err
	}
	var names []string
	for _, a := range d.added {
		for _, notes := range a.notes {
			if n := notes[noteName]; n != "" {
				names = append(names, ShortName(n))
			} else if img, err := d.s.read(a.manifest); err == nil {
				names = append(names, img.ID)
			}
		}
	}
	return names, nil
}

// layout adds the images that the index.json of an OCI image layout lists. names are those that their configs have
// elsewhere.
func (d *delivery) layout(ctx context.Context, text []byte, names map[v1.Hash][]string, get getter) error {
	index, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	for _, m := range index.Manifests {
		before := len(d.added)
		if err := d.image(ctx, m, get); err != nil {
			return err
		}
		for i := range d.added[before:] {
			a := &d.added[before+i]
			a.notes = nil
			img, err := d.manifest(a.manifest)
			if err != nil {
				return err
			}
			all := names[img.Config.Digest]
			if n := layoutName(m.Annotations); n != "" && !slices.Contains(all, n) {
				all = append(all, n)
			}
			for _, n := range all {
				a.notes = append(a.notes, map[string]string{noteName: n})
			}
			if len(all) == 0 {
				a.notes = []map[string]string{nil}
			}
		}
	}
	return nil
}

func (d *delivery) manifest(m v1.Descriptor) (*v1.Manifest, error) {
	text, err := d.text(m.Digest)
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(text))
}

// layoutName is the name of an image in a layout; containerd and Docker keep the whole one beside the tag.
func layoutName(notes map[string]string) string {
	for _, key := range []string{"io.containerd.image.name", noteName} {
		if n, err := parseTag(notes[key]); err == nil {
			return n
		}
	}
	return ""
}

// archive is the outer archive, whose files are blobs of the delivery.
type archive struct {
	d     *delivery
	files map[string]v1.Descriptor
	links map[string]string // docker save writes a layer once, and links to it for further images
	json  map[string][]byte
}

func (d *delivery) readArchive(ctx context.Context, r io.Reader) (*archive, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &archive{d: d, files: map[string]v1.Descriptor{}, links: map[string]string{}, json: map[string][]byte{}}
	t := tar.NewReader(plain)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		if err := a.entry(h, t); err != nil {
			return nil, fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

func (a *archive) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	switch {
	case h.Typeflag == tar.TypeSymlink:
		a.links[name] = path.Join(path.Dir(name), h.Linkname)
	case h.Typeflag == tar.TypeLink:
		a.links[name] = path.Clean(h.Linkname)
	case h.Typeflag != tar.TypeReg:
	case name == "manifest.json" || name == "index.json":
		if h.Size > maxJSON {
			return fmt.Errorf("it is larger than %d bytes", maxJSON)
		}
		text, err := io.ReadAll(r)
		a.json[name] = text
		return err
	default:
		digest, size, err := a.d.blob(r)
		a.files[name] = v1.Descriptor{Digest: digest, Size: size}
		return err
	}
	return nil
}

func (a *archive) file(name string) (v1.Descriptor, error) {
	name = path.Clean(name)
	if f, ok := a.files[name]; ok {
		return f, nil
	}
	if f, ok := a.files[a.links[name]]; ok {
		return f, nil
	}
	return v1.Descriptor{}, fmt.Errorf("%q is missing: the archive is not complete", name)
}

// dockerImage is one image in the manifest.json of a docker-archive.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archive) images(ctx context.Context) error {
	var docker []dockerImage
	if text, ok := a.json["manifest.json"]; ok {
		if err := json.Unmarshal(text, &docker); err != nil {
			return fmt.Errorf("manifest.json: %w", err)
		}
	}
	index, oci := a.json["index.json"]
	if !oci && docker == nil {
		return errors.New("neither manifest.json nor index.json is in it: it is no archive of images; for a root file system, use unionfsd import")
	}
	get := func(_ context.Context, want v1.Descriptor) error { // all blobs are there, under the digests that they have
		f, err := a.d.open(want.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return matches(want, want.Digest, st.Size())
	}
	names := map[v1.Hash][]string{}
	for _, img := range docker {
		config, err := a.file(img.Config)
		if err != nil {
			return err
		}
		tags := []string{}
		for _, tag := range img.RepoTags {
			n, err := parseTag(tag)
			if err != nil {
				return err
			}
			tags = append(tags, n)
		}
		names[config.Digest] = tags
		if oci { // which has its manifest
			continue
		}
		if err := a.docker(ctx, img, config, tags, get); err != nil {
			return err
		}
	}
	if !oci {
		return nil
	}
	return a.d.layout(ctx, index, names, get)
}

// docker adds an image of a docker-archive, which has no manifest of an image: one is made here, of OCI's types, since
// tools look for no others in a layout.
func (a *archive) docker(ctx context.Context, img dockerImage, config v1.Descriptor, tags []string, get getter) error {
	if hex := strings.TrimSuffix(path.Base(img.Config), ".json"); len(hex) == 64 && hex != config.Digest.Hex {
		return fmt.Errorf("config %q has the digest %s: it is damaged; get it again", img.Config, config.Digest)
	}
	config.MediaType = types.OCIConfigJSON
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{}}
	for _, name := range img.Layers {
		l, err := a.file(name)
		if err != nil {
			return err
		}
		c, err := a.d.compression(l.Digest)
		if err != nil {
			return err
		}
		l.MediaType = c.mediaType()
		m.Layers = append(m.Layers, l)
	}
	digest, size, err := a.d.json(m)
	if err != nil {
		return err
	}
	var notes []map[string]string
	for _, tag := range tags {
		notes = append(notes, map[string]string{noteName: tag})
	}
	return a.d.image(ctx, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size}, get, notes...)
}

func (d *delivery) compression(h v1.Hash) (Compression, error) {
	f, err := d.open(h)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var head [4]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	return sniff(head[:n]), nil
}
