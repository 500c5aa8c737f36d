package workload

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ls -l: read a directory, and stat each entry and ask for its ACL. Directories of one entry are most of those that
// are listed; one of 100,000 entries is a mail directory, or a cache.
func init() {
	const single, crowd = 1_000, 100_000
	layers := Recipe{Name: "ls", Build: func(b *Builder) error {
		dir, err := b.Layer()
		if err != nil {
			return err
		}
		for i := range b.Scale.Of(single) {
			if err := makeEmpty(filepath.Join(dir, fmt.Sprintf("single/%d", i)), 1); err != nil {
				return err
			}
		}
		return makeEmpty(filepath.Join(dir, "crowd"), b.Scale.Of(crowd))
	}}
	register(func() Workload {
		return Workload{
			Name: "ls", Group: "metadata",
			Doc:    "ls -l of 1,000 directories of 1 entry, and of one of 100,000",
			Layers: layers,
			Steps: []Step{{
				Name: "ls-1", Cold: true,
				Run: func(e *Env) (int, error) {
					n := e.Scale.Of(single)
					for i := range n {
						if got, err := walk(e.path(fmt.Sprintf("single/%d", i)), longList); err != nil {
							return 0, err
						} else if err := expect("entries", got, 1); err != nil {
							return 0, err
						}
					}
					return n, nil
				},
			}, {
				Name: "ls-100k", Cold: true,
				Run: func(e *Env) (int, error) {
					n, err := walk(e.path("crowd"), longList)
					if err != nil {
						return 0, err
					}
					return n, expect("entries", n, e.Scale.Of(crowd))
				},
			}, {
				Name: "ls-100k-again",
				Run:  func(e *Env) (int, error) { return walk(e.path("crowd"), longList) },
			}},
		}
	})
}

// makeEmpty makes a directory with n empty files.
func makeEmpty(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		fd, err := open(filepath.Join(dir, fmt.Sprintf("entry%06d", i)), unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// longList is a visitor that does what ls -l does with each name.
func longList(dirfd int, dir, name string, kind uint8) error {
	if err := lstatAt(dirfd, dir, name, kind); err != nil {
		return err
	}
	var value [256]byte
	_, err := unix.Lgetxattr(dir+"/"+name, "system.posix_acl_access", value[:])
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}
