package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/readahead"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image/layertar"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Layer is one layer of a store, and what it is in an image.
type Layer struct {
	DiffID   string
	Dir      string // where it is unpacked
	Lacks    string // in an image: a directory to be stacked above Dir, with what depends on the layers below; empty if nothing does
	Size     int64  // of its files, in bytes
	Contents layertar.Contents

	// In an image.
	ChainID, Parent string // Parent is the chain id of the layer below; empty for the lowest
	Digest          string // of its blob
	BlobSize        int64
}

// record is what layer.json has.
type record struct {
	layertar.Contents
	UserXattr bool `json:"user_xattr,omitempty"` // its marks are user.overlay.*
}

func (s *Store) layerPath(diffID v1.Hash) string { return filepath.Join(s.layers(), diffID.Hex) }

func (s *Store) hasLayer(diffID v1.Hash) bool {
	_, err := os.Stat(filepath.Join(s.layerPath(diffID), "layer.json"))
	return err == nil
}

func (s *Store) layer(diffID v1.Hash) (Layer, error) {
	dir := s.layerPath(diffID)
	text, err := os.ReadFile(filepath.Join(dir, "layer.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Layer{}, fmt.Errorf("layer %s is missing from the store: load or pull the image again", diffID)
	}
	var r record
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return Layer{}, fmt.Errorf("layer %s: %w", diffID, err)
	}
	return Layer{DiffID: diffID.String(), Dir: filepath.Join(dir, "diff"), Size: r.Bytes, Contents: r.Contents}, nil
}

// UserXattr reports whether the marks of the image's layers are user.overlay.*, since who unpacked them could make no
// others.
func (img *Image) UserXattr() (bool, error) {
	for _, diffID := range img.Config.RootFS.DiffIDs {
		text, err := os.ReadFile(filepath.Join(img.store.layerPath(diffID), "layer.json"))
		var r record
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err != nil || r.UserXattr {
			return r.UserXattr, err
		}
	}
	return false, nil
}

// xattrNames finds out under which names marks can be written below dir, by writing one.
func xattrNames(dir string) (layer.XattrNames, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return layer.XattrNames{}, err
	}
	defer unix.Close(fd)
	for _, user := range []bool{false, true} {
		x := layer.NewXattrNames(user)
		if err = sys.Setxattr(fd, "", x.Opaque, []byte("0"), 0); err == nil {
			return x, sys.Removexattr(fd, "", x.Opaque)
		}
		if err != unix.EPERM {
			break
		}
	}
	if err == unix.EOPNOTSUPP {
		err = errors.New("its file system has no extended attributes: choose one on ext4, xfs, btrfs or tmpfs (--root DIR)")
	}
	return layer.XattrNames{}, fmt.Errorf("image store %q: %w", dir, err)
}

// unpack unpacks the layer in the blob f of the delivery or of the store in the new directory dir, and checks it against its
// diff id.
func (d *delivery) unpack(ctx context.Context, dir string, f *os.File, digest, diffID v1.Hash) (layertar.Contents, error) {
	if err := os.MkdirAll(filepath.Join(dir, "diff"), 0o755); err != nil {
		return layertar.Contents{}, fmt.Errorf("image store: %w", err)
	}
	if err := os.Chmod(filepath.Join(dir, "diff"), 0o755); err != nil { // whatever the umask: it may become a root directory
		return layertar.Contents{}, fmt.Errorf("image store: %w", err)
	}
	root, err := unix.Open(filepath.Join(dir, "diff"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return layertar.Contents{}, fmt.Errorf("image store: %w", err)
	}
	defer unix.Close(root)
	var rec record
	use := func(tar io.Reader) (err error) {
		rec.Contents, err = layertar.Unpack(ctx, root, tar, layertar.Options{Xattr: d.xattr, Limits: d.o.Limits, Rootless: d.xattr.User()})
		return err
	}
	if r := (counted{f, d}); d.isPlain(f, digest, diffID) {
		err = use(bufio.NewReaderSize(r, 256<<10))
	} else {
		err = d.digested(r, diffID, use)
	}
	if err != nil {
		return layertar.Contents{}, err
	}
	rec.UserXattr = d.xattr.User()
	text, err := json.Marshal(rec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "layer.json"), append(text, '\n'), 0o600)
	}
	return rec.Contents, err
}

// isPlain reports whether the blob f is the archive itself, so that its digest, which was checked when it came, is the diff
// id.
func (d *delivery) isPlain(f *os.File, digest, diffID v1.Hash) bool {
	var head [4]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF || digest != diffID || sniff(head[:n]) != Uncompressed {
		return false
	}
	_, err = os.Stat(filepath.Join(d.blobs(), digest.Hex))
	return err == nil
}

// digested gives use the archive in r, which may be compressed, and then checks the diff id. use need not read to the end:
// what is behind the end of a tar archive counts, too.
func (d *delivery) digested(r io.Reader, want v1.Hash, use func(io.Reader) error) error {
	plain, err := decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	ahead, err := readahead.NewReaderSize(plain, 4, 256<<10) // so that a layer takes two processors
	if err != nil {
		return err
	}
	defer ahead.Close()
	sum := sha256.New()
	tar := io.TeeReader(ahead, sum)
	if err := use(tar); err != nil {
		return err
	}
	if err := drain(tar, d.o.Limits.Bytes); err != nil {
		return err
	}
	if got := (v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}); got != want {
		return fmt.Errorf("its archive has the digest %s, and the image says %s: the image is damaged; get it again", got, want)
	}
	return nil
}

// drain reads r to its end, which must come before limit bytes if that is not 0.
func drain(r io.Reader, limit int64) error {
	if limit > 0 {
		r = io.LimitReader(r, limit)
	}
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if limit > 0 && n == limit {
		return errors.New("more behind the archive than the limit for a layer: raise it (--max-layer-size) if you trust it")
	}
	return nil
}
