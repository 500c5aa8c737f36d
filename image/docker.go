package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DockerImage is an image in the store of Docker on this machine, where its layers are directories that a union can have
// as they are. No daemon is asked, and nothing is written.
type DockerImage struct {
	ID     string
	Config Config
	Dirs   []string // the topmost first
}

// DockerRoot is where Docker keeps its store by default.
const DockerRoot = "/var/lib/docker"

// Docker finds the image that arg names in the store of Docker's overlay2 driver in the directory root:
//
//	image/overlay2/repositories.json                  names of images
//	image/overlay2/imagedb/content/sha256/ID          configs
//	image/overlay2/layerdb/sha256/CHAIN-ID/cache-id   where a layer is:
//	overlay2/CACHE-ID/diff
func Docker(root, arg string) (*DockerImage, error) {
	db := filepath.Join(root, "image/overlay2")
	id, err := dockerID(db, arg)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(db, "imagedb/content/sha256", strings.TrimPrefix(id, "sha256:")))
	if err != nil {
		return nil, fmt.Errorf("image %q of Docker: %w", arg, err)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("image %q of Docker: config: %w", arg, err)
	}
	img := &DockerImage{ID: id, Config: config.Config}
	for _, chain := range slices.Backward(ChainIDs(config.RootFS.DiffIDs)) {
		cache, err := os.ReadFile(filepath.Join(db, "layerdb/sha256", strings.TrimPrefix(chain, "sha256:"), "cache-id"))
		if err != nil {
			return nil, fmt.Errorf("image %q of Docker: layer %s: %w", arg, Short(chain), err)
		}
		img.Dirs = append(img.Dirs, filepath.Join(root, "overlay2", strings.TrimSpace(string(cache)), "diff"))
	}
	return img, nil
}

// dockerID returns the id of the image that arg names: a name, an id, or the unique beginning of an id.
func dockerID(db, arg string) (string, error) {
	text, err := os.ReadFile(filepath.Join(db, "repositories.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("no overlay2 store of Docker in %q: name its data root (--docker-root DIR), or use docker save IMAGE | unionfsd load", filepath.Dir(filepath.Dir(db)))
	}
	var names struct{ Repositories map[string]map[string]string }
	if err == nil {
		err = json.Unmarshal(text, &names)
	}
	if err != nil {
		return "", fmt.Errorf("store of Docker: %w", err)
	}
	full := ""
	if ref, err := parseName(arg); err == nil {
		full = ShortName(fullName(ref))
	}
	var found []string
	for _, tags := range names.Repositories {
		for name, id := range tags {
			if name == full {
				return id, nil
			}
			if HasPrefix(id, arg) && !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d of Docker's images are called %q; docker images lists them", len(found), arg)
	}
	return found[0], nil
}
