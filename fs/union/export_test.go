package union_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestHandlesOfAnotherMount: they are stale, whatever has their node id now.
func TestHandlesOfAnotherMount(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	spec := layer.Spec{Upper: dirs[1], Work: dirs[2], Lower: dirs[3:], Options: layer.Options{NFSExport: true}}
	testfs.Write(t, spec.Lower[0], "file f")

	m := server.Mount(t, spec, dirs[0])
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dirs[0]+"/f", 0)
	m.Unmount()
	if err != nil {
		t.Fatal(err)
	}
	m = server.Mount(t, spec, dirs[0])
	defer m.Unmount()
	var st unix.Stat_t
	if err := unix.Lstat(dirs[0]+"/f", &st); err != nil { // so that some node has that id
		t.Fatal(err)
	}
	root, err := unix.Open(dirs[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, h, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	if err != unix.ESTALE {
		t.Errorf("open by a handle of the mount before: %v, want ESTALE", err)
	}
}
