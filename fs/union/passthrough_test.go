package union_test

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// passingUnion mounts a union over a lower file "low" and an upper file "up".
func passingUnion(t *testing.T, options string) (*mounttest.Mount, layer.Spec) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 4)
	testfs.Write(t, dirs[0], `file low "lower"`)
	testfs.Write(t, dirs[1], `file up "upper"`)
	parsed, _, err := layer.ParseOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2], Options: parsed.Options}
	return server.Mount(t, spec, dirs[3]), spec
}

func openHeld(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := unix.Pread(int(f.Fd()), b, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestPassedThrough opens files, kills the server, and looks which of them can be read all the same: those that the
// kernel reads by itself.
func TestPassedThrough(t *testing.T) {
	reading := func(name string) func(*testing.T, string) *os.File {
		return func(t *testing.T, dir string) *os.File { return openHeld(t, dir+"/"+name, unix.O_RDONLY) }
	}
	for _, c := range []struct {
		name, options string
		open          func(t *testing.T, dir string) *os.File
		passed        bool
	}{
		{"an upper file", "", reading("up"), true},
		{"a new file", "", func(t *testing.T, dir string) *os.File { return openHeld(t, dir+"/new", unix.O_RDWR|unix.O_CREAT) }, true},
		{"a file that is copied up", "", func(t *testing.T, dir string) *os.File { return openHeld(t, dir+"/low", unix.O_RDWR) }, true},
		{"a lower file", "", reading("low"), false},
		{"a lower file that nobody can write", "ro", reading("low"), true},
		{"a lower file with passthrough=all", "passthrough=all", reading("low"), true},
		{"an upper file with passthrough=off", "passthrough=off", reading("up"), false},
		{"a file that is copied up while it is read", "", func(t *testing.T, dir string) *os.File {
			openHeld(t, dir+"/low", unix.O_RDONLY)
			return openHeld(t, dir+"/low", unix.O_RDWR)
		}, false},
		{"the same, once the reader is gone", "", func(t *testing.T, dir string) *os.File {
			reader := openHeld(t, dir+"/low", unix.O_RDONLY)
			openHeld(t, dir+"/low", unix.O_RDWR).Close()
			reader.Close()
			time.Sleep(100 * time.Millisecond) // the kernel tells of the end of an open file when it finds the time
			return openHeld(t, dir+"/low", unix.O_RDWR)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := passingUnion(t, c.options)
			f := c.open(t, m.Target)
			m.Kill()
			_, err := unix.Pread(int(f.Fd()), make([]byte, 1), 0)
			if c.passed && err != nil || !c.passed && err == nil {
				t.Errorf("after the end of the server, reading gives %v", err)
			}
		})
	}
}

// TestPassthroughAll pins what passthrough=all trades: who has a lower file open goes on reading it, all others see what
// is written, and the lower file stays as it is.
func TestPassthroughAll(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string) error{
		"written": func(t *testing.T, path string) error {
			_, err := openHeld(t, path, unix.O_WRONLY).WriteString("new")
			return err
		},
		"truncated by name": func(_ *testing.T, path string) error { return unix.Truncate(path, 2) },
		"opened with O_TRUNC": func(t *testing.T, path string) error {
			_, err := openHeld(t, path, unix.O_WRONLY|unix.O_TRUNC).WriteString("n")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{"written": "newer", "truncated by name": "lo", "opened with O_TRUNC": "n"}[name]
			m, spec := passingUnion(t, "passthrough=all")
			path := m.Target + "/low"
			before := openHeld(t, path, unix.O_RDONLY)
			if err := change(t, path); err != nil {
				t.Fatal(err)
			}
			after := openHeld(t, path, unix.O_RDWR)
			if got := content(t, before); got != "lower" {
				t.Errorf("who had it open reads %q", got)
			}
			if got := content(t, after); got != want {
				t.Errorf("who opens it reads %q, want %q", got, want)
			}
			var st [2]unix.Stat_t
			for i, f := range []*os.File{before, after} {
				if err := unix.Fstat(int(f.Fd()), &st[i]); err != nil {
					t.Fatal(err)
				}
			}
			if st[0].Ino != st[1].Ino {
				t.Errorf("the inode number was %d, and is %d", st[0].Ino, st[1].Ino)
			}
			if got, _ := os.ReadFile(spec.Lower[0] + "/low"); string(got) != "lower" {
				t.Errorf("the lower file is %q now", got)
			}
			if got, _ := os.ReadFile(spec.Upper + "/low"); string(got) != want {
				t.Errorf("the upper file is %q", got)
			}
		})
	}
}
