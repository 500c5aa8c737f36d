package union

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// The fuzz targets write marks as they please into layers, and compare what a union makes of them with what the
// kernel's overlayfs does.

// fuzzLayers makes the layers of a union, the upper one from the first tree, and opens it without mounting it.
func fuzzLayers(t *testing.T, trees ...string) layer.Spec {
	t.Helper()
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, len(trees)+1)
	for i, text := range trees {
		testfs.Write(t, dirs[i], text)
	}
	return layer.Spec{Upper: dirs[0], Lower: dirs[1:len(trees)], Work: dirs[len(trees)],
		Options: layer.Options{RedirectDir: layer.RedirectFollow}}
}

// mark sets a mark on an object of a layer. It reports whether the file system takes the value.
func mark(t *testing.T, path, attr string, value []byte) bool {
	t.Helper()
	switch err := unix.Lsetxattr(path, "trusted.overlay."+attr, value, 0); err {
	case nil:
		return true
	case unix.ENOSPC, unix.E2BIG, unix.ERANGE:
		return false
	default:
		t.Fatal(err)
		return false
	}
}

// sameAsKernel compares what the two make of the directory "d" and what is in it. Where marks are not as they should be,
// the kernel lists names that it does not find then (it looks for the mark of a file in any directory, but lists by the
// mark of the directory); there it is no example.
func sameAsKernel(t *testing.T, spec layer.Spec) {
	t.Helper()
	ours, kernels := ourListing(t, spec), kernelListing(t, spec)
	if strings.Contains(ours, notFound) {
		t.Fatalf("the union lists what it does not find: %s", ours)
	}
	if ours != kernels && !strings.Contains(kernels, notFound) {
		t.Fatalf("the union has %s, the kernel %s", ours, kernels)
	}
}

const notFound = " (not found)"

func ourListing(t *testing.T, spec layer.Spec) string {
	t.Helper()
	stack, err := layer.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.Work.Prepare(); err != nil {
		t.Fatal(err)
	}
	fs, err := newFS(stack, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer fs.close()
	id, err := fuzzLookup(fs, rootID, "d")
	if err != nil {
		return "error"
	}
	fs.renameMu.RLock()
	list, err := fs.listLocked(fs.node(id), true)
	fs.renameMu.RUnlock()
	if err != nil {
		return "error"
	}
	return listing(list, func(e dirent) string { return e.name }, func(name string) error {
		_, err := fuzzLookup(fs, id, name)
		return err
	})
}

// fuzzLookup looks a name up as the kernel would.
func fuzzLookup(fs *FS, parent uint64, name string) (uint64, error) {
	var out fuse.EntryOut
	if status := fs.Lookup(nil, &fuse.InHeader{NodeId: parent}, name, &out); !status.Ok() {
		return 0, unix.Errno(status)
	}
	if out.NodeId == 0 {
		return 0, unix.ENOENT
	}
	return out.NodeId, nil
}

func kernelListing(t *testing.T, spec layer.Spec) string {
	t.Helper()
	view, err := overlayfs.Backend{}.Open(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	fd, err := unix.Openat(view.FD(), "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "error"
	}
	defer unix.Close(fd)
	list, err := testfs.ReadDir(fd)
	if err != nil {
		return "error"
	}
	return listing(list, func(d testfs.Dirent) string { return d.Name }, func(name string) error {
		var st unix.Stat_t
		return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// listing is the names of a list, sorted, each with whether it can be looked up.
func listing[T any](list []T, name func(T) string, lookup func(string) error) string {
	var names []string
	for _, e := range list {
		n := name(e)
		if n == "." || n == ".." {
			continue
		}
		if err := lookup(n); err != nil {
			n += notFound
		}
		names = append(names, n)
	}
	sort.Strings(names)
	return "[" + strings.Join(names, ", ") + "]"
}

// FuzzRedirect writes anything into overlay.redirect, of a directory of the upper layer or of the one below.
func FuzzRedirect(f *testing.F) {
	for _, value := range []string{
		"", "/", "//", ".", "..", "/nowhere/.", "d", "e", "/e", "e/", "/e/", "/e/s", "e/s", "/./e", "/../e", "/e/..", "/link", "/link/s",
		"link", "file", "/file", "/file/x", "gone", "/gone", "white", "/white/x", "e\x00", "/e\x00x", "\x00", "/e\x00/..", "/nowhere/at/all",
		strings.Repeat("n", 255), strings.Repeat("n", 256), "/" + strings.Repeat("n/", 200), "/" + strings.Repeat("n", 300),
	} {
		f.Add([]byte(value), true)
		f.Add([]byte(value), false)
	}
	f.Fuzz(func(t *testing.T, value []byte, inUpper bool) {
		const tree = `
			dir d
			file d/%[1]s.d
			dir e
			file e/%[1]s.e
			dir e/s
			file e/s/%[1]s.s
			file file
			symlink link -> e
			whiteout white`
		spec := fuzzLayers(t, "dir d\nfile d/upper", fmt.Sprintf(tree, "middle"), fmt.Sprintf(tree, "bottom"))
		dir := spec.Lower[0]
		if inUpper {
			dir = spec.Upper
		}
		if !mark(t, dir+"/d", "redirect", value) {
			return
		}
		parts := strings.Split(unix.ByteSliceToString(value), "/")
		if slices.Contains(parts, ".") || slices.Contains(parts, "..") { // the kernel refuses them when it comes to them
			if ours := ourListing(t, spec); ours != "error" {
				t.Fatalf("the union has %s", ours)
			}
			return
		}
		sameAsKernel(t, spec)
	})
}

// FuzzMarks writes anything into the marks of directories and files that make whiteouts and opaque directories.
func FuzzMarks(f *testing.F) {
	for _, value := range []string{"", "y", "x", "n", "yy", "xy", "y\x00", "\x00"} {
		for layer := range uint8(3) {
			f.Add([]byte(value), []byte("y"), layer, false)
			f.Add([]byte("x"), []byte(value), layer, false)
			f.Add([]byte("x"), []byte(value), layer, true)
		}
	}
	f.Fuzz(func(t *testing.T, opaque, white []byte, which uint8, full bool) {
		spec := fuzzLayers(t, "dir d", "dir d\nfile d/a\nfile d/b", "dir d\nfile d/a\nfile d/c")
		dir := append([]string{spec.Upper}, spec.Lower...)[int(which)%3]
		var content []byte
		if full {
			content = []byte("x")
		}
		for _, name := range []string{"a", "c"} {
			path := filepath.Join(dir, "d", name)
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			if !mark(t, path, "whiteout", white) {
				return
			}
		}
		if !mark(t, dir+"/d", "opaque", opaque) {
			return
		}
		sameAsKernel(t, spec)
	})
}
