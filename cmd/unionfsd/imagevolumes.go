package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/unionfsd/unionfsd/image"
)

// An image may say that directories are volumes: what is written there is not of the container's layer, so it is in no diff
// and in no commit. Each is a directory of the container beside its layers, which begins with what the image has there and
// goes with the container. For one that stays, a directory of the host is mounted there with -v.

// imageVolumes returns the paths of volumes, the upper ones first, on which nothing else is to be mounted.
func imageVolumes(c image.Config, mounts []mountSpec) ([]string, error) {
	var paths []string
	for p := range c.Volumes {
		clean := path.Clean(p)
		if !path.IsAbs(clean) || clean == "/" {
			return nil, fmt.Errorf("volume %q of the image: it must be an absolute path below the root", p)
		}
		if !slices.ContainsFunc(mounts, func(m mountSpec) bool { return m.Target == clean }) {
			paths = append(paths, clean)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// makeVolumes makes the volumes of the image, and says where they are to be mounted.
func (s *supervisor) makeVolumes(ctx context.Context) ([]mountSpec, error) {
	var specs []mountSpec
	for i, target := range s.Volumes {
		dir := filepath.Join(s.home.Volumes(), strconv.Itoa(i))
		err := image.WriteDir(ctx, dir, func(w io.Writer) error { return image.ExportDir(ctx, s.Spec, target, w) })
		if err != nil {
			return nil, fmt.Errorf("volume %q of the image: %w", target, err)
		}
		specs = append(specs, mountSpec{Source: dir, Target: target, MapIDs: s.users != nil && !s.nested})
	}
	return specs, nil
}
