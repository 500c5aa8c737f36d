package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image/layertar"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Options say how images are taken in.
type Options struct {
	Limits   layertar.Limits
	Platform v1.Platform // which image of several; that of this host by default

	// Layer, if not nil, is told what becomes of each layer. One call at a time.
	Layer func(id, status string)

	// Progress, if not nil, is told how many bytes of archives were downloaded or unpacked, and how many there are to be. One
	// call at a time.
	Progress func(done, total int64)
}

// delivery is what is being added to a store: all of it appears, or nothing.
type delivery struct {
	s     *Store
	o     Options
	held  io.Closer
	dir   string
	xattr layer.XattrNames
	added []added

	partsMu sync.Mutex
	parts   []string // downloads that are in the delivery; guarded by partsMu

	telling     sync.Mutex // held while functions of Options are called
	done, total int64      // what Options.Progress was told; guarded by telling
}

// added is an image that is to appear.
type added struct {
	manifest v1.Descriptor
	notes    []map[string]string // one entry of index.json each
}

// receive begins a delivery. The caller ends it with close.
func (s *Store) receive(o Options) (*delivery, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	held, err := s.Hold()
	if err != nil {
		return nil, err
	}
	d := &delivery{s: s, o: o, held: held}
	if d.dir, err = os.MkdirTemp(s.incoming(), ""); err == nil {
		err = errors.Join(os.Mkdir(d.blobs(), 0o700), os.Mkdir(d.layers(), 0o700))
	}
	if err == nil {
		d.xattr, err = xattrNames(d.dir)
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("image store: %w", err)
	}
	return d, nil
}

func (d *delivery) blobs() string  { return filepath.Join(d.dir, "blobs") }
func (d *delivery) layers() string { return filepath.Join(d.dir, "layers") }

// close drops what was not published.
func (d *delivery) close() {
	if d.dir != "" {
		os.RemoveAll(d.dir) // what is left, gc removes
	}
	d.held.Close()
}

// blob takes in the bytes of r and returns their digest and number.
func (d *delivery) blob(r io.Reader) (v1.Hash, int64, error) {
	f, err := os.CreateTemp(d.dir, "blob-")
	if err != nil {
		return v1.Hash{}, 0, fmt.Errorf("image store: %w", err)
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(f, sum), r, make([]byte, 256<<10))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.blobs(), h.Hex))
	}
	return h, n, err
}

// checked is blob for what must have the digest and size of want.
func (d *delivery) checked(r io.Reader, want v1.Descriptor) error {
	h, n, err := d.blob(io.LimitReader(r, want.Size+1)) // one more shows that it is too long
	if err != nil {
		return fmt.Errorf("blob %s: %w", want.Digest, err)
	}
	err = matches(want, h, n)
	if err != nil {
		os.Remove(filepath.Join(d.blobs(), h.Hex))
	}
	return err
}

// adopt takes in the file part, which must have the digest and size of want. It goes when the delivery is published.
func (d *delivery) adopt(part *os.File, want v1.Descriptor) error {
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(part, 0, want.Size+1))
	if err != nil {
		return err
	}
	if err := matches(want, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, n); err != nil {
		return err
	}
	if err := part.Chmod(0o644); err != nil {
		return err
	}
	// By the descriptor: who else has it may publish now, and remove the name.
	err = sys.Linkat(unix.AT_FDCWD, sys.ProcPath(int(part.Fd()), ""), unix.AT_FDCWD, filepath.Join(d.blobs(), want.Digest.Hex), unix.AT_SYMLINK_FOLLOW)
	if err != nil && err != unix.EEXIST {
		return err
	}
	d.partsMu.Lock()
	defer d.partsMu.Unlock()
	d.parts = append(d.parts, part.Name())
	return nil
}

// matches returns an error unless a blob has the digest and the size that are wanted.
func matches(want v1.Descriptor, got v1.Hash, size int64) error {
	if size != want.Size {
		return fmt.Errorf("blob %s has not the size of %d bytes that the image says: it is damaged; get it again", want.Digest, want.Size)
	}
	if got != want.Digest {
		return fmt.Errorf("blob %s has the digest %s: it is damaged; get it again", want.Digest, got)
	}
	return nil
}

func (d *delivery) json(v any) (v1.Hash, int64, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return v1.Hash{}, 0, err
	}
	return d.blob(bytes.NewReader(text))
}

// open opens a blob of the delivery or of the store.
func (d *delivery) open(h v1.Hash) (*os.File, error) {
	f, err := os.Open(filepath.Join(d.blobs(), h.Hex))
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(d.s.blobPath(h))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("blob %s is missing: the image is not complete", h)
	}
	return f, err
}

func (d *delivery) has(h v1.Hash) bool {
	f, err := d.open(h)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// maxJSON bounds manifests and configs, in bytes.
const maxJSON = 8 << 20

// text reads a blob that is JSON.
func (d *delivery) text(h v1.Hash) ([]byte, error) {
	f, err := d.open(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err == nil && len(text) > maxJSON {
		err = fmt.Errorf("blob %s: a manifest or config of more than %d bytes", h, maxJSON)
	}
	return text, err
}

// getter makes sure that the delivery or the store has a blob.
type getter func(ctx context.Context, want v1.Descriptor) error

// image adds the image with the manifest m, or one of an index, whose blobs get gets.
func (d *delivery) image(ctx context.Context, m v1.Descriptor, get getter, notes ...map[string]string) error {
	if err := get(ctx, m); err != nil {
		return err
	}
	text, err := d.text(m.Digest)
	if err != nil {
		return err
	}
	if m.MediaType.IsIndex() {
		index, err := v1.ParseIndexManifest(bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("index %s: %w", m.Digest, err)
		}
		child, err := d.choose(index)
		if err != nil {
			return fmt.Errorf("index %s: %w", m.Digest, err)
		}
		return d.image(ctx, child, get, notes...)
	}
	if !m.MediaType.IsImage() {
		return fmt.Errorf("manifest %s is of the type %q, which is not that of an image", m.Digest, m.MediaType)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	if err := get(ctx, manifest.Config); err != nil {
		return err
	}
	if text, err = d.text(manifest.Config.Digest); err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("config %s: %w", manifest.Config.Digest, err)
	}
	if n, want := len(manifest.Layers), len(config.RootFS.DiffIDs); n != want || n == 0 {
		return fmt.Errorf("manifest %s has %d layers and its config %d: it is not an image of a file system", m.Digest, n, want)
	}
	if err := d.unpackAll(ctx, manifest.Layers, config.RootFS.DiffIDs, get); err != nil {
		return err
	}
	if err := d.complete(config.RootFS.DiffIDs); err != nil {
		return err
	}
	d.add(m, notes...)
	return nil
}

func (d *delivery) add(m v1.Descriptor, notes ...map[string]string) {
	if len(notes) == 0 {
		notes = []map[string]string{nil}
	}
	m.Data, m.URLs, m.Platform = nil, nil, nil
	d.added = append(d.added, added{m, notes})
}

// choose returns the manifest of the platform that is wanted.
func (d *delivery) choose(index *v1.IndexManifest) (v1.Descriptor, error) {
	want := d.o.Platform
	if want.Architecture == "" {
		want = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	for _, m := range index.Manifests {
		if m.Platform == nil && len(index.Manifests) == 1 || m.Platform != nil && m.Platform.Satisfies(want) {
			return m, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("no image for %s: choose another platform (--platform OS/ARCH)", want)
}

// unpackAll gets and unpacks the layers of an image side by side, as far as the store has them not.
func (d *delivery) unpackAll(ctx context.Context, blobs []v1.Descriptor, diffIDs []v1.Hash, get getter) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for i, blob := range blobs {
		if slices.Contains(diffIDs[:i], diffIDs[i]) && slices.ContainsFunc(blobs[:i], func(b v1.Descriptor) bool { return b.Digest == blob.Digest }) {
			continue
		}
		if !blob.MediaType.IsLayer() || !blob.MediaType.IsDistributable() {
			return fmt.Errorf("layer %s is of the type %q, which is not known: a layer is a tar archive, with gzip or zstd", blob.Digest, blob.MediaType)
		}
		g.Go(func() error {
			if err := d.unpackBlob(ctx, blob, diffIDs[i], get); err != nil {
				return fmt.Errorf("layer %s: %w", Short(blob.Digest.String()), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Short is a digest as people are shown it.
func Short(digest string) string {
	h, err := v1.NewHash(digest)
	if err != nil {
		return digest
	}
	return h.Hex[:12]
}

func (d *delivery) tell(blob v1.Descriptor, status string) {
	if d.o.Layer != nil {
		d.telling.Lock()
		defer d.telling.Unlock()
		d.o.Layer(Short(blob.Digest.String()), status)
	}
}

// progress tells that some bytes are dealt with, and that there are some more to be dealt with.
func (d *delivery) progress(done, more int64) {
	if d.o.Progress != nil {
		d.telling.Lock()
		defer d.telling.Unlock()
		d.done += done
		d.total += more
		d.o.Progress(d.done, d.total)
	}
}

// counted is a reader that tells of its bytes as progress.
type counted struct {
	io.Reader
	d *delivery
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.d.progress(int64(n), 0)
	return n, err
}

func (d *delivery) unpackBlob(ctx context.Context, blob v1.Descriptor, diffID v1.Hash, get getter) error {
	known := d.s.hasLayer(diffID)
	if known && d.has(blob.Digest) {
		if _, err := os.Stat(d.s.blobPath(blob.Digest)); err == nil {
			d.tell(blob, "Already exists")
			return nil
		}
	}
	d.progress(0, blob.Size)
	if err := get(ctx, blob); err != nil {
		return err
	}
	f, err := d.open(blob.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if known { // compressed otherwise; that it is the same must be seen all the same
		if err := d.digested(counted{f, d}, diffID, func(io.Reader) error { return nil }); err != nil {
			return err
		}
		d.tell(blob, "Already exists")
		return nil
	}
	temp, err := os.MkdirTemp(d.dir, "layer-")
	if err != nil {
		return err
	}
	contents, err := d.unpack(ctx, temp, f, blob.Digest, diffID)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(d.layers(), diffID.Hex)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	d.tell(blob, unpackedStatus(contents))
	return nil
}

// unpackedStatus says that a layer is unpacked, and what of it could not be kept.
func unpackedStatus(c layertar.Contents) string {
	var lost []string
	for _, l := range []struct {
		n    int64
		what string
	}{{c.LostOwners, "owners"}, {c.LostDevices, "devices"}, {c.LostXattrs, "attributes"}} {
		if l.n > 0 {
			lost = append(lost, fmt.Sprintf("%d %s", l.n, l.what))
		}
	}
	if len(lost) == 0 {
		return "Unpacked"
	}
	return "Unpacked, without " + strings.Join(lost, ", ") + " that this user or file system cannot have"
}

// publish lets what was delivered appear in the store.
func (d *delivery) publish() error {
	if err := d.dropUnused(); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	fd, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	err = sys.Syncfs(int(fd.Fd())) // once for all files, and before any of them has its name
	fd.Close()
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	for from, to := range map[string]string{d.layers(): d.s.layers(), d.blobs(): filepath.Join(d.s.images(), "blobs/sha256")} {
		if err := moveAll(from, to); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	err = d.s.changeIndex(func(index *v1.IndexManifest) error {
		for _, a := range d.added {
			for _, notes := range a.notes {
				put(index, a.manifest, notes)
			}
		}
		return nil
	})
	for _, part := range d.parts {
		_ = os.Remove(part) // what is left, gc removes
	}
	return err
}

// dropUnused removes the blobs that no image has: archives hold other files, too.
func (d *delivery) dropUnused() error {
	used := map[string]bool{}
	for _, a := range d.added {
		m, err := d.manifest(a.manifest)
		if err != nil {
			return err
		}
		used[a.manifest.Digest.Hex], used[m.Config.Digest.Hex] = true, true
		for _, l := range m.Layers {
			used[l.Digest.Hex] = true
		}
	}
	entries, err := os.ReadDir(d.blobs())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !used[e.Name()] {
			if err := os.Remove(filepath.Join(d.blobs(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveAll moves the entries of one directory to another. Those that are there already are the same.
func moveAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return syncDir(to)
}

// put adds an image to the index. A name that another image has becomes this one's.
func put(index *v1.IndexManifest, m v1.Descriptor, notes map[string]string) {
	name := notes[noteName]
	kept := index.Manifests[:0]
	for _, old := range index.Manifests {
		switch {
		case name != "" && old.Annotations[noteName] == name && old.Digest != m.Digest:
			delete(old.Annotations, noteName) // it goes on without a name
		case old.Digest == m.Digest && (old.Annotations[noteName] == name || old.Annotations[noteName] == ""):
			if old.Annotations[noteParent] != "" && notes[noteParent] == "" && notes != nil {
				notes[noteParent] = old.Annotations[noteParent]
			}
			continue // this one says as much
		}
		kept = append(kept, old)
	}
	index.Manifests = kept
	if name == "" && slices.ContainsFunc(kept, func(old v1.Descriptor) bool { return old.Digest == m.Digest }) {
		return // it is there, under a name
	}
	m.Annotations = notes
	index.Manifests = append(kept, m)
}
