package union

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestOpenLate: to open a lower file for reading opens nothing until it is read, unless that might be refused.
func TestOpenLate(t *testing.T) {
	fs := benchFS(t, 1)
	id := benchLookup(t, fs, benchLookup(t, fs, rootID, "dir"), benchName(0))
	path := fs.stack.Spec.Lower[0] + "/dir/" + benchName(0)
	open := func() *file {
		t.Helper()
		var out fuse.OpenOut
		if status := fs.Open(nil, &fuse.OpenIn{InHeader: benchHeader(id), Flags: unix.O_RDONLY}, &out); status != fuse.OK {
			t.Fatal(status)
		}
		t.Cleanup(func() { fs.Release(nil, &fuse.ReleaseIn{Fh: out.Fh}) })
		return fs.handles.file(out.Fh)
	}
	read := func(f *file) error {
		return f.with(func(fd int) error {
			_, err := unix.Pread(fd, make([]byte, 1), 0)
			return err
		})
	}
	fs.stack.Privileged = true
	late, other := open(), open()
	if late.fd >= 0 {
		t.Error("it is opened at once")
	}
	if err := read(late); err != nil || late.fd < 0 {
		t.Errorf("read: %v, descriptor %d", err, late.fd)
	}
	fs.stack.Privileged = false
	if f := open(); f.fd >= 0 {
		t.Error("a file that everybody may read is opened at once")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := open(); f.fd < 0 {
		t.Error("a file that this process might not be allowed to read is not opened")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := read(late); err != nil {
		t.Errorf("one that was read before it was replaced: %v", err)
	}
	if err := read(other); err != unix.ENOENT {
		t.Errorf("one that was replaced before it was read: %v, want ENOENT", err)
	}
}
