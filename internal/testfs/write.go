package testfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Write makes the tree text in dir, which must exist and be empty.
func Write(t testing.TB, dir, text string) {
	t.Helper()
	tree, err := Parse(text)
	if err == nil {
		err = tree.Write(dir)
	}
	if err != nil {
		t.Fatalf("write tree: %v", err)
	}
}

// Write makes the objects of t in dir. Further names of an object come after all objects, since they may stand before
// it in the order of paths; times come last, children before parents, since making an object changes the time of its
// directory.
func (t Tree) Write(dir string) error {
	for _, links := range []bool{false, true} {
		for _, e := range t {
			if (e.Kind == Hardlink) != links {
				continue
			}
			if err := e.write(dir); err != nil {
				return fmt.Errorf("%s %q: %w", e.Kind, e.Path, err)
			}
		}
	}
	for i := len(t) - 1; i >= 0; i-- {
		if e := t[i]; !e.MTime.IsZero() {
			if err := setMTime(filepath.Join(dir, e.Path), e.MTime); err != nil {
				return fmt.Errorf("times of %q: %w", e.Path, err)
			}
		}
	}
	return nil
}

func setMTime(path string, m time.Time) error {
	ts := unix.NsecToTimespec(m.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (e Entry) write(dir string) error {
	path := filepath.Join(dir, e.Path)
	dev := int(unix.Mkdev(e.Major, e.Minor))
	var err error
	switch e.Kind {
	case Dir:
		if e.Path != "." {
			err = unix.Mkdir(path, 0o700)
		}
	case File:
		err = e.writeFile(path)
	case Symlink:
		err = unix.Symlink(e.Target, path)
	case Hardlink:
		return unix.Link(filepath.Join(dir, e.Target), path)
	case Whiteout:
		return unix.Mknod(path, unix.S_IFCHR, 0)
	case Fifo:
		err = unix.Mknod(path, unix.S_IFIFO, 0)
	case Socket:
		err = unix.Mknod(path, unix.S_IFSOCK, 0)
	case Char:
		err = unix.Mknod(path, unix.S_IFCHR, dev)
	case Block:
		err = unix.Mknod(path, unix.S_IFBLK, dev)
	default:
		return fmt.Errorf("cannot be written")
	}
	if err != nil {
		return err
	}
	return e.writeAttrs(path)
}

func (e Entry) writeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(e.Size); err != nil {
		return err
	}
	for _, x := range e.Data {
		if _, err := f.WriteAt([]byte(x.Data), x.Off); err != nil {
			return err
		}
	}
	return f.Close()
}

// writeAttrs sets owner, then mode, then xattrs: chown drops set-id bits and capabilities.
func (e Entry) writeAttrs(path string) error {
	if err := unix.Lchown(path, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	if e.Kind != Symlink {
		if err := unix.Chmod(path, e.Mode); err != nil {
			return err
		}
	}
	set := func(name, value string) error {
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("xattr %s: %w", name, err)
		}
		return nil
	}
	for name, value := range e.Xattrs {
		if err := set(name, value); err != nil {
			return err
		}
	}
	if e.Opaque != "" {
		if err := set("trusted.overlay.opaque", e.Opaque); err != nil {
			return err
		}
	}
	if e.Redirect != "" {
		if err := set("trusted.overlay.redirect", e.Redirect); err != nil {
			return err
		}
	}
	if e.Metacopy {
		return set("trusted.overlay.metacopy", "")
	}
	return nil
}

// Diff compares two fingerprints or texts of trees line by line, and returns the lines that only one has, each
// behind "-" (only in want) or "+" (only in got), in the order of paths; empty if there are none.
func Diff(want, got string) string {
	w, g := strings.Split(strings.TrimSpace(want), "\n"), strings.Split(strings.TrimSpace(got), "\n")
	var b strings.Builder
	for len(w) > 0 || len(g) > 0 {
		switch {
		case len(w) > 0 && len(g) > 0 && w[0] == g[0]:
			w, g = w[1:], g[1:]
		case len(g) == 0 || len(w) > 0 && lineKey(w[0]) <= lineKey(g[0]):
			if w[0] != "" {
				b.WriteString("- " + w[0] + "\n")
			}
			w = w[1:]
		default:
			if g[0] != "" {
				b.WriteString("+ " + g[0] + "\n")
			}
			g = g[1:]
		}
	}
	return b.String()
}

func lineKey(line string) string {
	words, err := split(line)
	if err != nil || len(words) < 2 {
		return line
	}
	path, _ := unquote(words[1])
	return pathKey(path)
}
