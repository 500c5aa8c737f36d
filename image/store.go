package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// Store holds images and layers. Nothing of it need exist: reading finds it empty, adding makes it.
type Store struct{ root string }

// At is the store in the state root, an absolute path.
func At(root string) *Store { return &Store{root} }

func (s *Store) images() string   { return filepath.Join(s.root, "images") }
func (s *Store) layers() string   { return filepath.Join(s.root, "layers") }
func (s *Store) incoming() string { return filepath.Join(s.root, "incoming") }

func (s *Store) blobPath(h v1.Hash) string {
	return filepath.Join(s.images(), "blobs", h.Algorithm, h.Hex)
}

// prepare makes the directories of the store. Only their owner gets there: layers have set-id programs and devices in them.
func (s *Store) prepare() error {
	for _, dir := range []string{s.root, s.layers(), s.incoming(), s.images(), filepath.Join(s.images(), "blobs/sha256")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("image store: %w; pass --root DIR with a directory that you may write", err)
		}
	}
	return writeFile(filepath.Join(s.images(), "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// Hold keeps layers from being removed until what it returns is closed.
func (s *Store) Hold() (io.Closer, error) {
	if _, err := os.Stat(s.layers()); errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil // there are none
	}
	return lock(s.layers(), unix.LOCK_SH)
}

func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if err := sys.Retry(func() error { return unix.Flock(int(f.Fd()), how) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", dir, err)
	}
	return f, nil
}

// What the entries of index.json say of an image.
const (
	noteName       = "org.opencontainers.image.ref.name"
	noteParent     = "io.unionfsd.parent"      // id of the image that it was made of here
	noteRepoDigest = "io.unionfsd.repo-digest" // what it was pulled as: REPOSITORY@DIGEST
)

// index reads index.json.
func (s *Store) index() (*v1.IndexManifest, error) {
	f, err := os.Open(filepath.Join(s.images(), "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	defer f.Close()
	index, err := v1.ParseIndexManifest(f)
	if err != nil {
		return nil, fmt.Errorf("image store: %q: %w", f.Name(), err)
	}
	return index, nil
}

// changeIndex changes index.json, one process at a time.
func (s *Store) changeIndex(change func(*v1.IndexManifest) error) error {
	held, err := lock(s.images(), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer held.Close()
	index, err := s.index()
	if err != nil {
		return err
	}
	if err := change(index); err != nil {
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return writeFile(filepath.Join(s.images(), "index.json"), text)
}

// writeFile makes name hold text, all or nothing, also across a crash.
func writeFile(name string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("image store: %w", err)
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
