package workload

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Recipe builds lower layers. Recipes of the same name build the same.
type Recipe struct {
	Name     string
	Build    func(*Builder) error
	FromTree bool // it needs Builder.Tree
}

// Builder is where a recipe builds.
type Builder struct {
	Dir     string // the layers are made in here
	Scratch string // for what workloads need besides
	Tree    string // a large source tree: Go's
	Program string // unionfsd, which says [Hello] when it is called HelloName
	Scale   Scale

	Layers []string // what was made, the topmost first
}

// Layer makes one more layer, below those that are there.
func (b *Builder) Layer() (string, error) {
	dir := filepath.Join(b.Dir, fmt.Sprintf("%04d", len(b.Layers)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	b.Layers = append(b.Layers, dir)
	return dir, nil
}

// empty is one empty layer.
var empty = Recipe{Name: "empty", Build: func(b *Builder) error {
	_, err := b.Layer()
	return err
}}

// Shape of the files recipe.
const (
	fileDirs  = 100
	fileCount = 10_000
)

// files is 10,000 files of 1 to 8 KiB in 100 directories.
var files = Recipe{Name: "files", Build: func(b *Builder) error {
	dir, err := b.Layer()
	if err != nil {
		return err
	}
	made := map[string]bool{}
	for i, name := range fileNames(b.Scale) {
		path := filepath.Join(dir, name)
		if parent := filepath.Dir(path); !made[parent] {
			if err := os.Mkdir(parent, 0o755); err != nil {
				return err
			}
			made[parent] = true
		}
		if err := os.WriteFile(path, noise(1024+i*977%7168, uint64(i)), 0o644); err != nil {
			return err
		}
	}
	return nil
}}

// fileNames returns the names of the files recipe, directory by directory.
func fileNames(scale Scale) []string {
	names := make([]string, 0, fileCount)
	for i := range scale.Of(fileCount) {
		names = append(names, fmt.Sprintf("dir%03d/file%05d", i/(fileCount/fileDirs), i))
	}
	return names
}

// filePaths returns the first n files of the files recipe in the union, n scaled.
func (e *Env) filePaths(n int) []string {
	var paths []string
	for _, name := range fileNames(e.Scale)[:e.Scale.Of(n)] {
		paths = append(paths, e.path(name))
	}
	return paths
}

// treeEntries is the size of the source tree that is stacked.
const treeEntries = 18_000

// tree is the Go source tree, without what is built from it.
var tree = Recipe{Name: "tree", FromTree: true, Build: func(b *Builder) error {
	dir, err := b.Layer()
	if err != nil {
		return err
	}
	return copyTree(b.Tree, dir, b.Scale.Of(treeEntries))
}}

// copyTree copies the first limit entries of a tree, in lexical order.
func copyTree(from, to string, limit int) error {
	errEnough := errors.New("enough")
	count := 0
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		switch rel {
		case "bin", "pkg", ".git":
			return fs.SkipDir
		}
		if count++; count > limit {
			return errEnough
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch info.Mode().Type() {
		case fs.ModeDir:
			return os.Mkdir(target, info.Mode().Perm()|0o700)
		case fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case 0:
			return copyFile(path, target, info.Mode().Perm())
		}
		count-- // sockets and the like are no source
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

// bigFile is one layer with one file of the given size.
func bigFile(mib int) Recipe {
	return Recipe{Name: fmt.Sprintf("big-%d", mib), Build: func(b *Builder) error {
		dir, err := b.Layer()
		if err != nil {
			return err
		}
		return writeNoise(filepath.Join(dir, "big"), b.Scale.Bytes(mib))
	}}
}

// writeNoise makes a file of the given size, without holes.
func writeNoise(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	chunk := noise(1<<20, 1)
	for ; size > 0 && err == nil; size -= int64(len(chunk)) {
		_, err = f.Write(chunk[:min(int64(len(chunk)), size)])
	}
	return errors.Join(err, f.Close())
}
