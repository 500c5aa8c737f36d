package merged

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// How directories are merged is checked by packages diff and image/layertar, against what the kernel mounts.

func TestMain(m *testing.M) { testfs.Main(m) }

// read returns the data that a union has at name in its root directory.
func read(t *testing.T, spec layer.Spec, name string) (string, error) {
	t.Helper()
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	u, err := New(stack)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	o, err := u.Topmost(u.Roots(), name)
	if err != nil || !o.IsFile() {
		t.Fatalf("%s: %v, %v", name, o, err)
	}
	data, err := u.Open(u.Roots(), name, o)
	if err != nil {
		return "", err
	}
	defer data.Close()
	text, err := io.ReadAll(io.NewSectionReader(data, 0, o.Stat.Size))
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}

func TestMetacopy(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	testfs.Write(t, dirs[0], `
		file f size=4 metacopy
		file moved size=4 metacopy redirect=f
		file away size=4 metacopy redirect=/d/g
		file data size=4 metacopy redirect=/only
		file lost size=4 metacopy
		file dir size=4 metacopy redirect=d
		file own "mine"`)
	testfs.Write(t, dirs[1], "dir d\nfile d/g size=4 metacopy")
	testfs.Write(t, dirs[2], "file f \"1234\"\ndir d\nfile d/g \"5678\"\nfile own \"not!\"")
	testfs.Write(t, dirs[3], `file only "data"`)
	spec := layer.Spec{Lower: dirs[:3], Data: dirs[3:], Options: layer.Options{Metacopy: true}}
	for name, want := range map[string]string{"f": "1234", "moved": "1234", "away": "5678", "data": "data", "own": "mine"} {
		if got, err := read(t, spec, name); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"lost", "dir"} {
		if got, err := read(t, spec, name); err == nil || !strings.Contains(err.Error(), "no lower layer has its data") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	spec.Options.Metacopy = false
	if got, err := read(t, spec, "f"); err == nil || !strings.Contains(err.Error(), "metacopy=on") {
		t.Errorf("without metacopy=on: %q, %v", got, err)
	}
}

// TestLazy reads a copy of which a part is still in the lower file, while there is a part in both.
func TestLazy(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	lower := filepath.Join(dirs[0], "f")
	if err := os.WriteFile(lower, want, 0o644); err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	stack, err := layer.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.Work.Prepare(); err != nil {
		t.Fatal(err)
	}
	src := cow.Source{Ref: stack.Lowers[0].Root.At("f"), Layer: stack.Lowers[0]}
	if err := src.Ref.Stat(&src.Stat); err != nil {
		t.Fatal(err)
	}
	c := cow.Copier{Work: stack.Work, Xattr: stack.Xattr}
	staged, lazy, err := c.BuildLazy(src, cow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if staged == nil || !lazy {
		testfs.Skip(t, "this file system has no lazy copies")
	}
	if err := staged.Publish(stack.Upper.Root, "f", layer.Add); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dirs[1], "f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := bytes.Repeat([]byte("written "), 512)
	if _, err := f.WriteAt(block, 4096*7); err != nil {
		t.Fatal(err)
	}
	copy(want[4096*7:], block)
	if got, err := read(t, spec, "f"); got != string(want) || err != nil {
		t.Errorf("%d bytes that are not the file's, %v", len(got), err)
	}
	if err := unix.Utimes(lower, make([]unix.Timeval, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, spec, "f"); err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("after a change of the lower file: %v", err)
	}
}

func TestResolve(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 2)
	testfs.Write(t, dirs[0], "dir var\nsymlink var/run -> /run\nsymlink loop -> loop\nwhiteout gone")
	testfs.Write(t, dirs[1], "dir var\nsymlink var/x -> ../../etc\nsymlink last -> var/run/y\nsymlink gone -> /etc\ndir run")
	stack, err := layer.OpenReadOnly(layer.Spec{Lower: dirs})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	u, err := New(stack)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for path, want := range map[string]string{
		"/var/run/postgresql": "run/postgresql",
		"var/x/passwd":        "etc/passwd",
		"last":                "run/y",
		"gone":                "gone",
		"a//./b/../../..":     "",
		"none/at/all":         "none/at/all",
	} {
		if got, err := u.Resolve(path); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := u.Resolve("loop/x"); err != unix.ELOOP {
		t.Errorf("loop: %v", err)
	}
}
