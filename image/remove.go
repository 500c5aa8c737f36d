package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Tag gives the image one more name. An image that has it loses it.
func (s *Store) Tag(img *Image, name string) error {
	full, err := parseTag(name)
	if err != nil {
		return err
	}
	return s.changeIndex(func(index *v1.IndexManifest) error {
		notes := map[string]string{noteName: full}
		if img.Parent != "" {
			notes[noteParent] = img.Parent
		}
		put(index, img.descriptor, notes)
		return nil
	})
}

// Remove takes from the image the name that arg is or, if arg is none of its names or its only one, all of them and the
// image itself, if allowed says nothing against that. It returns the names, and whether the image is gone. What nobody
// needs then is removed by [Store.GC].
func (s *Store) Remove(img *Image, arg string, allowed func() error) (names []string, gone bool, err error) {
	full, _ := parseTag(arg)
	gone = !slices.Contains(img.Names, full) || len(img.Names) == 1
	if gone && full != "" && !slices.Contains(img.Names, full) && len(img.Names) > 1 {
		return nil, false, fmt.Errorf("image %s has %d names: remove them by name", Short(img.ID), len(img.Names))
	}
	if gone {
		if err := allowed(); err != nil {
			return nil, false, err
		}
	}
	err = s.changeIndex(func(index *v1.IndexManifest) error {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m v1.Descriptor) bool {
			name := m.Annotations[noteName]
			drop := m.Digest == img.descriptor.Digest && (gone || name == full)
			if drop && name != "" {
				names = append(names, ShortName(name))
			}
			return drop
		})
		return nil
	})
	return names, gone, err
}

// ErrHeld says that somebody uses the store now.
var ErrHeld = errors.New("the image store is in use: a pull, load or start is under way; try again when it has ended")

// GC removes the layers and blobs that no image has, but those layers whose directories used returns, which is called while
// nobody can begin to use one; and what interrupted commands have left. It returns how many layers and how many bytes of
// blobs. The error is ErrHeld while somebody else holds the store.
func (s *Store) GC(used func() ([]string, error)) (layers int, bytes int64, err error) {
	if err := s.prepare(); err != nil {
		return 0, 0, err
	}
	held, err := lock(s.layers(), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return 0, 0, ErrHeld
	}
	if err != nil {
		return 0, 0, err
	}
	defer held.Close()
	images, err := s.Images()
	if err != nil {
		return 0, 0, err
	}
	keep := map[string]bool{}
	for _, img := range images {
		keep[img.descriptor.Digest.Hex], keep[img.Manifest.Config.Digest.Hex] = true, true
		for i, l := range img.Manifest.Layers {
			keep[l.Digest.Hex], keep[img.Config.RootFS.DiffIDs[i].Hex] = true, true
		}
		for _, chain := range ChainIDs(img.Config.RootFS.DiffIDs) {
			keep[chainName(chain)] = true
		}
	}
	dirs, err := used()
	if err != nil {
		return 0, 0, err
	}
	for _, dir := range dirs {
		keep[filepath.Base(filepath.Dir(dir))] = true
	}
	if layers, _, err = sweep(s.layers(), keep); err != nil {
		return 0, 0, err
	}
	if _, bytes, err = sweep(filepath.Join(s.images(), "blobs/sha256"), keep); err != nil {
		return 0, 0, err
	}
	_, _, err = sweep(s.incoming(), nil)
	return layers, bytes, err
}

// sweep removes the entries of dir that are not to be kept, and returns how many (what goes with a layer is none by itself),
// and their sizes if they are files. What is interrupted is a layer without its layer.json, which counts as none.
func sweep(dir string, keep map[string]bool) (n int, bytes int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("image store: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
			bytes += st.Size()
		}
		_ = os.Remove(filepath.Join(path, "layer.json")) // first: without it there is no layer
		if err := os.RemoveAll(path); err != nil {
			return n, bytes, fmt.Errorf("image store: %w", err)
		}
		if !strings.HasPrefix(e.Name(), chainPrefix) {
			n++
		}
	}
	return n, bytes, nil
}
