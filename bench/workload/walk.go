package workload

import "golang.org/x/sys/unix"

// walk: find, du, rsync and every tool that looks at a whole tree. Cold after a start, warm ever after.
func init() {
	register(func() Workload {
		var paths []string
		entries := 0
		return Workload{
			Name: "walk", Group: "metadata",
			Doc:    "stat everything in a source tree of 18,000 entries",
			Layers: tree,
			Steps: []Step{{
				Name: "cold-walk", Cold: true,
				Run: func(e *Env) (n int, err error) {
					entries, err = walk(e.Dir, lstatAt)
					return entries, err
				},
			}, {
				Name: "warm-walk",
				Run: func(e *Env) (int, error) {
					n, err := walk(e.Dir, lstatAt)
					if err != nil {
						return 0, err
					}
					return n, expect("entries", n, entries)
				},
			}, {
				Name: "warm-stat",
				Before: func(e *Env) error {
					_, err := walk(e.Dir, func(dirfd int, dir, name string, kind uint8) error {
						paths = append(paths, dir+"/"+name)
						return lstatAt(dirfd, dir, name, kind)
					})
					return err
				},
				Run: func(*Env) (int, error) { return forEach("stat", paths, lstat) },
			}},
		}
	})

	// What podman's commit does: a walk that asks each file for its capabilities. The kernel never remembers the
	// answer of a FUSE server.
	register(func() Workload {
		return Workload{
			Name: "getxattr-walk", Group: "metadata",
			Doc:    "walk and ask each file for its capabilities, as podman commit does",
			Layers: tree,
			Steps: []Step{{
				Name: "getxattr-walk", Cold: true,
				Run: func(e *Env) (int, error) {
					var value [64]byte
					return walk(e.Dir, func(dirfd int, dir, name string, kind uint8) error {
						if err := lstatAt(dirfd, dir, name, kind); err != nil {
							return err
						}
						_, err := unix.Lgetxattr(dir+"/"+name, "security.capability", value[:])
						if err == unix.ENODATA || err == unix.EOPNOTSUPP {
							return nil
						}
						return err
					})
				},
			}},
		}
	})
}
