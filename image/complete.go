package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image/layertar"
)

// A layer is unpacked by itself, so what in it depends on the layers below is missing there (layertar.Contents.Depends).
// It is kept beside the layers, as one more that is stacked directly above, and named by the chain id: that is of a layer
// and all below it. Most layers lack nothing: it is only their root directory that has no entry, and is like those below.
//
//	ROOT/layers/chain-CHAIN-ID/layer.json   what the layer lacks was looked for
//	ROOT/layers/chain-CHAIN-ID/diff/        what it lacks, if it lacks anything

const chainPrefix = "chain-"

func chainName(chainID string) string { return chainPrefix + strings.TrimPrefix(chainID, "sha256:") }

// complement returns the directory of what a layer lacks; empty if it lacks nothing.
func (s *Store) complement(chainID string) (string, error) {
	dir := filepath.Join(s.layers(), chainName(chainID))
	if _, err := os.Stat(filepath.Join(dir, "layer.json")); err != nil {
		return "", fmt.Errorf("what depends on the layers below %s is missing from the store: load or pull the image again", chainID)
	}
	if _, err := os.Stat(filepath.Join(dir, "diff")); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return filepath.Join(dir, "diff"), nil
}

// complete makes what the layers of an image lack, all of which are in the delivery or in the store.
func (d *delivery) complete(diffIDs []v1.Hash) error {
	var dirs []string // the topmost first
	for i, chain := range ChainIDs(diffIDs) {
		dir, contents, err := d.unpacked(diffIDs[i])
		if err != nil {
			return err
		}
		dirs = slices.DeleteFunc(dirs, func(below string) bool { return below == dir }) // it is there twice
		with := []string{dir}
		switch {
		case !contents.Depends():
		case i == 0:
			if len(contents.Foreign) > 0 {
				l := contents.Foreign[0]
				err = fmt.Errorf("hard link %q to %q: it does not have that file, and there is no layer below it", l.Name, l.Target)
			}
		default:
			var lacks string
			if lacks, err = d.completeLayer(chain, contents, append(with, dirs...)); lacks != "" {
				with = []string{lacks, dir}
			}
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", Short(diffIDs[i].String()), err)
		}
		dirs = append(with, dirs...)
	}
	return nil
}

// unpacked returns where a layer of the delivery or of the store is, and what it holds.
func (d *delivery) unpacked(diffID v1.Hash) (dir string, c layertar.Contents, err error) {
	path := filepath.Join(d.layers(), diffID.Hex)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path = d.s.layerPath(diffID)
	}
	text, err := os.ReadFile(filepath.Join(path, "layer.json"))
	var r record
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return "", c, fmt.Errorf("layer %s: %w", diffID, err)
	}
	return filepath.Join(path, "diff"), r.Contents, nil
}

// completeLayer makes what the layer with the given chain id lacks, and returns its directory, or none. The layer is the
// first of dirs, and those below it follow.
func (d *delivery) completeLayer(chainID string, c layertar.Contents, dirs []string) (string, error) {
	path := filepath.Join(d.layers(), chainName(chainID))
	if _, err := os.Stat(path); err == nil {
		return diffIn(path), nil
	}
	if lacks, err := d.s.complement(chainID); err == nil {
		return lacks, nil
	}
	temp, err := os.MkdirTemp(d.dir, "chain-")
	if err != nil {
		return "", err
	}
	upper, work := filepath.Join(temp, "upper"), filepath.Join(temp, "work")
	if err := errors.Join(os.Mkdir(upper, 0o700), os.Mkdir(work, 0o700)); err != nil {
		return "", err
	}
	spec := layer.Spec{Lower: dirs, Upper: upper, Work: work, Options: layer.Options{UserXattr: d.xattr.User()}}
	if err := completeIn(spec, c); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(upper, "layer.json"), []byte("{}\n"), 0o600); err != nil {
		return "", err
	}
	return diffIn(path), errors.Join(os.Rename(upper, path), os.RemoveAll(temp))
}

// diffIn is the directory diff in path, if there is one.
func diffIn(path string) string {
	if dir := filepath.Join(path, "diff"); unix.Access(dir, unix.F_OK) == nil {
		return dir
	}
	return ""
}

func completeIn(spec layer.Spec, c layertar.Contents) error {
	if len(c.Implied) == 0 && len(c.Foreign) == 0 { // in most layers it is the root that has no entry, and all have the same
		stack, err := layer.OpenReadOnly(layer.Spec{Lower: spec.Lower[:2], Options: spec.Options})
		if err != nil {
			return err
		}
		defer stack.Close()
		same, err := layertar.SameRoot(stack.Lowers[0].Root.Self(), stack.Lowers[1].Root.Self(), stack.Xattr)
		if same || err != nil {
			return err
		}
	}
	stack, err := layer.Open(spec)
	if err != nil {
		return err
	}
	defer stack.Close()
	return layertar.Complete(stack, c, "diff")
}
