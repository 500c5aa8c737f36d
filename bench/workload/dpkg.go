package workload

import (
	"fmt"
	"os"
	"path/filepath"
)

// dpkg: installing packages, the first line of most Dockerfiles. dpkg unpacks next to the old file, syncs, renames.
func init() {
	const packages, filesEach = 50, 40
	register(func() Workload {
		return Workload{
			Name: "dpkg", Group: "real",
			Doc: "dpkg -i of 50 packages of 40 files",
			Layers: Recipe{Name: "dpkg", Build: func(b *Builder) error {
				dir, err := b.Layer()
				if err != nil {
					return err
				}
				for _, name := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/share"} {
					if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
						return err
					}
				}
				for _, name := range []string{"status", "available"} {
					if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg", name), nil, 0o644); err != nil {
						return err
					}
				}
				for i := range b.Scale.Of(packages) {
					if err := makePackage(b.Scratch, i, b.Scale.Of(filesEach)); err != nil {
						return err
					}
				}
				return nil
			}},
			Changes: true, Needs: []string{"dpkg", "dpkg-deb"},
			Steps: []Step{{
				Name: "dpkg-install",
				Run: func(e *Env) (int, error) {
					n := e.Scale.Of(packages)
					args := []string{"--root=" + e.Dir, "--no-triggers", "-i"}
					for i := range n {
						args = append(args, filepath.Join(e.Scratch, packageName(i)+".deb"))
					}
					_, err := command("/", []string{"LC_ALL=C"}, "dpkg", args...)
					return n, err
				},
			}},
		}
	})
}

func packageName(i int) string { return fmt.Sprintf("bench-package-%02d", i) }

// makePackage builds a Debian package of small files in dir.
func makePackage(dir string, i, files int) error {
	name := packageName(i)
	root := filepath.Join(dir, name)
	data := filepath.Join(root, "usr/share", name)
	for _, d := range []string{filepath.Join(root, "DEBIAN"), data} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@localhost>\nDescription: files\n", name)
	if err := os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		return err
	}
	for n := range files {
		if err := os.WriteFile(filepath.Join(data, fmt.Sprintf("file%02d", n)), noise(2000+n*300, uint64(n)), 0o644); err != nil {
			return err
		}
	}
	if _, err := command(dir, nil, "dpkg-deb", "--root-owner-group", "-Zgzip", "-b", root, root+".deb"); err != nil {
		return err
	}
	return os.RemoveAll(root)
}
