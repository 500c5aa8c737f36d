package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image/layertar"
)

// emptyDiffID is the digest of a tar archive with nothing in it. A change that is nothing adds no layer.
const emptyDiffID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// Change says what a new image has beside its layers.
type Change struct {
	Name        string // to give it; may be empty
	CreatedBy   string // what made the layer
	Author      string
	Comment     string
	Configure   func(*Config) error // changes how it is run; may be nil
	Compression Compression         // of the new layer
	Created     time.Time
}

// Import makes an image of one layer from a root file system: a tar archive, compressed or not.
func (s *Store) Import(ctx context.Context, r io.Reader, c Change, o Options) (*Image, error) {
	return s.build(ctx, nil, nil, c, o, func(w io.Writer) error {
		plain, err := decompress(r)
		if err != nil {
			return err
		}
		defer plain.Close()
		_, err = io.Copy(w, plain)
		return err
	})
}

// ImportDir is Import for a directory.
func (s *Store) ImportDir(ctx context.Context, dir string, c Change, o Options) (*Image, error) {
	return s.build(ctx, nil, nil, c, o, func(w io.Writer) error {
		return pack(ctx, w, layer.Spec{Lower: []string{dir}}, layertar.PackOptions{})
	})
}

// Commit makes an image of parent with one more layer: what the upper layer of stack changes.
func (s *Store) Commit(ctx context.Context, parent *Image, stack *layer.Stack, c Change, o Options) (*Image, error) {
	if stack.Upper == nil {
		return nil, errors.New("a read-only union has no changes")
	}
	return s.build(ctx, parent, parent.Config.RootFS.DiffIDs, c, o, func(w io.Writer) error {
		return layertar.Pack(ctx, w, stack, layertar.PackOptions{Changes: true, Base: len(stack.Lowers)})
	})
}

// Squash makes an image of parent whose layers but the lowest keep are one.
func (s *Store) Squash(ctx context.Context, parent *Image, keep int, c Change, o Options) (*Image, error) {
	layers, err := parent.Layers()
	if err != nil {
		return nil, err
	}
	if keep < 0 || keep >= len(layers) {
		return nil, fmt.Errorf("image %s has %d layers: keep fewer than that", Short(parent.ID), len(layers))
	}
	all, top := dirsOf(layers), dirsOf(layers[keep:])
	return s.build(ctx, parent, parent.Config.RootFS.DiffIDs[:keep], c, o, func(w io.Writer) error {
		return parent.pack(ctx, w, all, layertar.PackOptions{Changes: keep > 0, Base: len(all) - len(top)})
	})
}

// Export writes the file system of an image as a tar archive.
func (img *Image) Export(ctx context.Context, w io.Writer) error {
	dirs, err := img.Dirs()
	if err != nil {
		return err
	}
	return img.pack(ctx, w, dirs, layertar.PackOptions{})
}

// pack packs the union of directories of the image, the topmost first.
func (img *Image) pack(ctx context.Context, w io.Writer, dirs []string, o layertar.PackOptions) error {
	user, err := img.UserXattr()
	if err != nil {
		return err
	}
	return pack(ctx, w, layer.Spec{Lower: dirs, Options: layer.Options{UserXattr: user}}, o)
}

// WriteDir makes the directory dir of the archive that write writes. dir must not exist, or be empty, and has all of it or
// nothing.
func WriteDir(ctx context.Context, dir string, write func(io.Writer) error) (err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q: %w; name a directory that is empty or does not exist", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%q is not empty: name a directory that is, or does not exist", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, ".unionfsd-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	root, err := os.Open(temp)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := os.Chmod(temp, 0o755); err != nil { // if nothing says otherwise
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	x, xerr := xattrNames(temp) // who is not root of the machine can make no others than user.*
	contents, err := layertar.Unpack(ctx, int(root.Fd()), r, layertar.Options{Plain: true, Rootless: xerr != nil || x.User()})
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	r.CloseWithError(err)
	if err != nil {
		return err
	}
	if len(contents.Foreign) > 0 {
		return fmt.Errorf("hard link %q to %q, which the archive does not have", contents.Foreign[0].Name, contents.Foreign[0].Target)
	}
	return os.Rename(temp, dir)
}

// ExportUnion writes the file system that a union shows as a tar archive.
func ExportUnion(ctx context.Context, spec layer.Spec, w io.Writer) error {
	return pack(ctx, w, spec, layertar.PackOptions{})
}

// ExportDir is ExportUnion for the directory at a path in the union, symbolic links followed. If there is none, the archive
// is empty.
func ExportDir(ctx context.Context, spec layer.Spec, dir string, w io.Writer) error {
	return pack(ctx, w, spec, layertar.PackOptions{Dir: dir})
}

func pack(ctx context.Context, w io.Writer, spec layer.Spec, o layertar.PackOptions) error {
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		return err
	}
	defer stack.Close()
	return layertar.Pack(ctx, w, stack, o)
}

// build makes an image of the lowest layers of parent and one that write writes. parent may be nil.
func (s *Store) build(ctx context.Context, parent *Image, keep []v1.Hash, c Change, o Options, write func(io.Writer) error) (*Image, error) {
	d, err := s.receive(o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	config := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	if parent != nil {
		config = *parent.Config.DeepCopy()
		m.Layers = append(m.Layers, parent.Manifest.Layers[:len(keep)]...)
		config.History = historyOf(config.History, len(keep))
	}
	blob, diffID, err := d.newLayer(ctx, c.Compression, write)
	if err != nil {
		return nil, err
	}
	entry := v1.History{Created: v1.Time{Time: c.Created}, CreatedBy: c.CreatedBy, Author: c.Author, Comment: c.Comment}
	config.RootFS.DiffIDs = slices.Clone(keep)
	if entry.EmptyLayer = diffID.String() == emptyDiffID && len(keep) > 0; !entry.EmptyLayer {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		m.Layers = append(m.Layers, blob)
	}
	config.Created, config.History = entry.Created, append(config.History, entry)
	if c.Author != "" {
		config.Author = c.Author
	}
	if c.Configure != nil {
		if err := c.Configure(&config.Config); err != nil {
			return nil, err
		}
	}
	return d.build(parent, config, m, c.Name)
}

// historyOf returns the entries of a history that tell of the lowest n layers.
func historyOf(history []v1.History, n int) []v1.History {
	for i, h := range history {
		if h.EmptyLayer {
			continue
		}
		if n == 0 {
			return slices.Clip(history[:i])
		}
		n--
	}
	return slices.Clip(history)
}

// build adds the image with the given config and manifest, whose blobs are there.
func (d *delivery) build(parent *Image, config v1.ConfigFile, m v1.Manifest, name string) (*Image, error) {
	if err := d.complete(config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	digest, size, err := d.json(config)
	if err != nil {
		return nil, err
	}
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digest, Size: size}
	if digest, size, err = d.json(m); err != nil {
		return nil, err
	}
	notes := map[string]string{}
	if name != "" {
		if notes[noteName], err = parseTag(name); err != nil {
			return nil, err
		}
	}
	if parent != nil {
		notes[noteParent] = parent.ID
	}
	desc := v1.Descriptor{MediaType: m.MediaType, Digest: digest, Size: size}
	d.add(desc, notes)
	if err := d.publish(); err != nil {
		return nil, err
	}
	return d.s.read(desc)
}

// newLayer takes in the layer whose archive write writes, as a blob and unpacked.
func (d *delivery) newLayer(ctx context.Context, c Compression, write func(io.Writer) error) (v1.Descriptor, v1.Hash, error) {
	sum := sha256.New()
	r, w := io.Pipe()
	go func() {
		z, err := compress(w, c)
		if err == nil {
			err = write(io.MultiWriter(z, sum))
		}
		if err == nil {
			err = z.Close()
		}
		w.CloseWithError(err)
	}()
	digest, size, err := d.blob(r)
	r.CloseWithError(err)
	if err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	diffID := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	blob := v1.Descriptor{MediaType: c.mediaType(), Digest: digest, Size: size}
	if d.s.hasLayer(diffID) {
		return blob, diffID, nil
	}
	f, err := d.open(digest)
	if err != nil {
		return blob, diffID, err
	}
	defer f.Close()
	temp, err := os.MkdirTemp(d.dir, "layer-")
	if err == nil {
		_, err = d.unpack(ctx, temp, f, digest, diffID)
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(d.layers(), diffID.Hex))
	}
	return blob, diffID, err
}
