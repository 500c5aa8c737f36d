package union_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/metrics"
)

// counted counts requests by operation.
type counted struct {
	*metrics.Union
	requests [64]atomic.Int32
}

func (c *counted) Begin(op uint32) {
	c.requests[op].Add(1)
	c.Union.Begin(op)
}

// A union that nobody changes is asked once whether a file may be opened, and once for what is in it.
func TestOpenWithoutRequests(t *testing.T) {
	testfs.NeedRoot(t)
	lower, target := t.TempDir(), t.TempDir()
	text := make([]byte, 20_000)
	copy(text[9_000:], "text")
	if err := os.WriteFile(filepath.Join(lower, "f"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	testfs.Write(t, lower, "file sparse\n")
	if err := os.Truncate(filepath.Join(lower, "sparse"), 1<<20); err != nil {
		t.Fatal(err)
	}
	spec := layer.Spec{Lower: []string{lower}}
	spec.Options.LowerImmutable = true
	spec.Options.FUSE.Passthrough = layer.PassthroughOff
	counts := &counted{Union: metrics.NewUnion(union.Operations)}
	view, err := union.Backend{Observer: counts}.Open(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if err := view.Attach(target); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(target, unix.MNT_DETACH)

	for range 10 {
		got, err := os.ReadFile(filepath.Join(target, "f"))
		if err != nil || string(got) != string(text) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	for op, most := range map[string]int32{"open": 1, "flush": 1, "read": 1, "release": 0} {
		for i, name := range union.Operations {
			if n := counts.requests[i].Load(); name == op && n > most {
				t.Errorf("%d requests to %s; want %d at most", n, op, most)
			}
		}
	}
	f, err := os.Open(filepath.Join(target, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || at != 0 && at >= 1<<20 {
		t.Errorf("a hole at %d, %v", at, err)
	}
	if _, err := unix.Seek(int(f.Fd()), 1<<21, unix.SEEK_DATA); err != unix.ENXIO {
		t.Errorf("data beyond the end: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if _, err := os.OpenFile(filepath.Join(target, "f"), os.O_RDWR, 0); err == nil {
		t.Error("opened for writing")
	}
}
