package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// Config is how an image says that it is to be run.
type Config = v1.Config

// ParsePlatform reads OS/ARCH[/VARIANT].
func ParsePlatform(text string) (*v1.Platform, error) { return v1.ParsePlatform(text) }

// Image is one image of a store.
type Image struct {
	ID          string   // digest of its config
	Digest      string   // of its manifest
	Names       []string // full: docker.io/library/nginx:latest
	RepoDigests []string // what it was pulled as
	Parent      string   // id of the image that it was made of here; empty if it was not
	Manifest    v1.Manifest
	Config      v1.ConfigFile
	RawConfig   []byte

	store      *Store
	descriptor v1.Descriptor // of its manifest
}

// ErrNoImage is the cause of an error about an image that is not in the store.
var ErrNoImage = errors.New("no such image; unionfsd images lists them")

// Images returns all images, the last one that was added first.
func (s *Store) Images() ([]*Image, error) {
	index, err := s.index()
	if err != nil {
		return nil, err
	}
	byDigest := map[v1.Hash]*Image{}
	var list []*Image
	for _, d := range slices.Backward(index.Manifests) {
		img := byDigest[d.Digest]
		if img == nil {
			if img, err = s.read(d); err != nil {
				return nil, err
			}
			byDigest[d.Digest] = img
			list = append(list, img)
		}
		img.note(d.Annotations)
	}
	return list, nil
}

func (img *Image) note(notes map[string]string) {
	if n := notes[noteName]; n != "" && !slices.Contains(img.Names, n) {
		img.Names = append(img.Names, n)
	}
	if n := notes[noteRepoDigest]; n != "" && !slices.Contains(img.RepoDigests, n) {
		img.RepoDigests = append(img.RepoDigests, n)
	}
	if n := notes[noteParent]; n != "" {
		img.Parent = n
	}
}

// read reads the image with the manifest d from its blobs.
func (s *Store) read(d v1.Descriptor) (*Image, error) {
	raw, err := os.ReadFile(s.blobPath(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("image %s: manifest: %w", d.Digest, err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("image %s: manifest: %w", d.Digest, err)
	}
	config, err := os.ReadFile(s.blobPath(m.Config.Digest))
	if err != nil {
		return nil, fmt.Errorf("image %s: config: %w", d.Digest, err)
	}
	img := &Image{ID: m.Config.Digest.String(), Digest: d.Digest.String(), Manifest: *m, RawConfig: config, store: s, descriptor: d}
	cf, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, fmt.Errorf("image %s: config: %w", d.Digest, err)
	}
	img.Config = *cf
	return img, nil
}

// Image returns the image that arg names: a name, a digest, an id, or the unique beginning of an id. The error matches
// [ErrNoImage] if there is none.
func (s *Store) Image(arg string) (*Image, error) {
	list, err := s.Images()
	if err != nil {
		return nil, err
	}
	full, repoDigest := "", ""
	if ref, err := parseName(arg); err == nil {
		full = fullName(ref)
		repoDigest = hubName(ref.Context().Name()) + "@" + ref.Identifier()
	}
	var byID []*Image
	for _, img := range list {
		if slices.Contains(img.Names, full) || slices.Contains(img.RepoDigests, repoDigest) {
			return img, nil
		}
		if HasPrefix(img.ID, arg) || HasPrefix(img.Digest, arg) {
			byID = append(byID, img)
		}
	}
	switch len(byID) {
	case 1:
		return byID[0], nil
	case 0:
		return nil, fmt.Errorf("image %q: %w", arg, ErrNoImage)
	}
	return nil, fmt.Errorf("image %q: %d ids begin so: give more of it", arg, len(byID))
}

// HasPrefix reports whether what a user typed is a digest or the beginning of one, with or without its algorithm.
func HasPrefix(digest, typed string) bool {
	if typed == "" {
		return false
	}
	_, hex, _ := strings.Cut(digest, ":")
	return strings.HasPrefix(hex, typed) || len(typed) > len("sha256:") && strings.HasPrefix(digest, typed)
}

// ChainIDs returns the chain ids of layers with the given diff ids, the lowest first.
func ChainIDs(diffIDs []v1.Hash) []string {
	digests := make([]digest.Digest, len(diffIDs))
	for i, h := range diffIDs {
		digests[i] = digest.Digest(h.String())
	}
	chain := make([]string, len(digests))
	for i, d := range identity.ChainIDs(digests) {
		chain[i] = d.String()
	}
	return chain
}

// Layers returns the layers of the image, the lowest first.
func (img *Image) Layers() ([]Layer, error) {
	chain := ChainIDs(img.Config.RootFS.DiffIDs)
	layers := make([]Layer, len(chain))
	for i, diffID := range img.Config.RootFS.DiffIDs {
		l, err := img.store.layer(diffID)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.ID, err)
		}
		l.ChainID = chain[i]
		if i > 0 {
			l.Parent = chain[i-1]
			if l.Contents.Depends() {
				if l.Lacks, err = img.store.complement(chain[i]); err != nil {
					return nil, fmt.Errorf("image %s: %w", img.ID, err)
				}
			}
		}
		l.Digest = img.Manifest.Layers[i].Digest.String()
		l.BlobSize = img.Manifest.Layers[i].Size
		layers[i] = l
	}
	return layers, nil
}

// Dirs returns the directories of the layers, the topmost first, as a union takes them. A layer that the image has twice
// is there once: all that the lower one shows, the upper one does.
func (img *Image) Dirs() ([]string, error) {
	layers, err := img.Layers()
	return dirsOf(layers), err
}

func dirsOf(layers []Layer) []string {
	var dirs []string
	for _, l := range slices.Backward(layers) {
		for _, dir := range []string{l.Lacks, l.Dir} {
			if dir != "" && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// Size is the size of all files of the image, in bytes.
func (img *Image) Size() (int64, error) {
	layers, err := img.Layers()
	var n int64
	for _, l := range layers {
		n += l.Size
	}
	return n, err
}
