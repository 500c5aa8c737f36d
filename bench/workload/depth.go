package workload

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// depth: what each layer costs. Images of build tools have dozens of layers, some users hundreds; the kernel ends at
// 500. The same 40,000 files are spread over more and more layers, in directories that all layers have.
func init() {
	for _, layers := range []int{1, 2, 16, 64, 128, 250, 500, 1000, 2000} {
		register(func() Workload { return depth(layers) })
	}
}

const (
	depthFiles = 40_000
	depthDirs  = 40
)

func depth(layers int) Workload {
	name := func(what string) string { return fmt.Sprintf("layers-%d-%s", layers, what) }
	point := func(curve string) *Point { return &Point{Curve: curve, Axis: "layers", X: float64(layers)} }
	return Workload{
		Name: fmt.Sprintf("layers-%d", layers), Group: "depth",
		Doc: fmt.Sprintf("mount %d layers, walk their 40,000 files, look up 5,000 names that are not there", layers),
		Layers: Recipe{Name: fmt.Sprintf("layers-%d", layers), Build: func(b *Builder) error {
			return spread(b, layers, b.Scale.Of(depthFiles))
		}},
		Mount: name("mount"), Curve: point("time to mount"),
		Steps: []Step{{
			Name: name("walk"), Cold: true, Curve: point("cold walk of 40,000 files"), Memory: name("memory"),
			Run: func(e *Env) (int, error) {
				files := 0
				n, err := walk(e.Dir, func(dirfd int, dir, name string, kind uint8) error {
					if kind == unix.DT_REG {
						files++
					}
					return lstatAt(dirfd, dir, name, kind)
				})
				if err != nil {
					return 0, err
				}
				return n, expect("files", files, e.Scale.Of(depthFiles))
			},
		}, {
			Name: name("negative"), Cold: true, Curve: point("look up 5,000 names that are not there"),
			Run: func(e *Env) (int, error) {
				var paths []string
				dirs := max(min(e.Scale.Of(depthFiles)/layers, depthDirs), 1)
				for i := range e.Scale.Of(5_000) {
					paths = append(paths, e.path(depthDir(i%dirs), fmt.Sprintf("missing%d", i)))
				}
				return forEach("stat", paths, func(path string) error {
					if err := lstat(path); err != unix.ENOENT {
						return fmt.Errorf("want ENOENT, got %v", err)
					}
					return nil
				})
			},
		}},
	}
}

// depthDir names the n-th directory that files are dealt to.
func depthDir(n int) string { return fmt.Sprintf("dir%02d", n%depthDirs) }

// spread makes the layers and deals out the files to them.
func spread(b *Builder, layers, files int) error {
	for range layers {
		dir, err := b.Layer()
		if err != nil {
			return err
		}
		// With many layers there may be a file for some of them only.
		if err := os.Mkdir(filepath.Join(dir, depthDir(0)), 0o755); err != nil {
			return err
		}
	}
	for i := range files {
		dir := filepath.Join(b.Layers[i%layers], depthDir(i/layers))
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%05d", i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
