package union

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// The request path without the kernel: what is left of an operation when nobody has to be woken up.

const benchNames = 200 // in the directory "dir" of each union

// benchFS opens a union whose directory "dir" is on the given number of lower layers, which share its names.
func benchFS(b testing.TB, lowers int) *FS {
	b.Helper()
	tmp := b.TempDir()
	spec := layer.Spec{Upper: filepath.Join(tmp, "upper"), Work: filepath.Join(tmp, "work")}
	for i := range lowers {
		spec.Lower = append(spec.Lower, filepath.Join(tmp, fmt.Sprint(i)))
	}
	for _, dir := range append([]string{spec.Upper, spec.Work}, spec.Lower...) {
		if err := os.MkdirAll(filepath.Join(dir, "dir"), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(spec.Upper, "dir")); err != nil {
		b.Fatal(err)
	}
	for i := range benchNames {
		if err := os.WriteFile(filepath.Join(spec.Lower[i%lowers], "dir", benchName(i)), make([]byte, 4096), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	stack, err := layer.Open(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stack.Close() })
	if err := stack.Work.Prepare(); err != nil {
		b.Fatal(err)
	}
	fs, err := newFS(stack, log.New(io.Discard, "", 0))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fs.close)
	return fs
}

func benchName(i int) string { return fmt.Sprintf("file%03d", i%benchNames) }

func benchHeader(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id} }

// benchLookup looks a name up as the kernel would.
func benchLookup(b testing.TB, fs *FS, parent uint64, name string) uint64 {
	b.Helper()
	header := benchHeader(parent)
	var out fuse.EntryOut
	if status := fs.Lookup(nil, &header, name, &out); status != fuse.OK {
		b.Fatalf("lookup %s: %v", name, status)
	}
	return out.NodeId
}

// eachDepth runs f on unions of few and of many layers.
func eachDepth(b *testing.B, f func(b *testing.B, fs *FS, dir uint64)) {
	for _, lowers := range []int{1, 2, 16, 250} {
		b.Run(fmt.Sprintf("layers=%d", lowers), func(b *testing.B) {
			fs := benchFS(b, lowers)
			dir := benchLookup(b, fs, rootID, "dir")
			b.ReportAllocs()
			f(b, fs, dir)
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	eachDepth(b, func(b *testing.B, fs *FS, dir uint64) {
		for i := 0; b.Loop(); i++ {
			fs.Forget(benchLookup(b, fs, dir, benchName(i)), 1)
		}
	})
}

func BenchmarkLookupNegative(b *testing.B) {
	eachDepth(b, func(b *testing.B, fs *FS, dir uint64) {
		header := benchHeader(dir)
		for b.Loop() {
			var out fuse.EntryOut
			if status := fs.Lookup(nil, &header, "missing", &out); status.Ok() && out.NodeId != 0 || !status.Ok() && status != fuse.ENOENT {
				b.Fatal(status, out.NodeId)
			}
		}
	})
}

func BenchmarkGetAttr(b *testing.B) {
	fs := benchFS(b, 1)
	in := fuse.GetAttrIn{InHeader: benchHeader(benchLookup(b, fs, benchLookup(b, fs, rootID, "dir"), benchName(0)))}
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.AttrOut
		if status := fs.GetAttr(nil, &in, &out); status != fuse.OK {
			b.Fatal(status)
		}
	}
}

func BenchmarkOpenRelease(b *testing.B) {
	fs := benchFS(b, 1)
	in := fuse.OpenIn{InHeader: benchHeader(benchLookup(b, fs, benchLookup(b, fs, rootID, "dir"), benchName(0))), Flags: unix.O_RDONLY}
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.OpenOut
		if status := fs.Open(nil, &in, &out); status != fuse.OK {
			b.Fatal(status)
		}
		fs.Release(nil, &fuse.ReleaseIn{InHeader: in.InHeader, Fh: out.Fh})
	}
}

// BenchmarkReadDir merges and lists a directory of 200 names.
func BenchmarkReadDir(b *testing.B) {
	eachDepth(b, func(b *testing.B, fs *FS, dir uint64) {
		buf := make([]byte, 64<<10)
		for b.Loop() {
			read := fuse.ReadIn{InHeader: benchHeader(dir), Size: uint32(len(buf))}
			if status := fs.ReadDir(nil, &read, fuse.NewDirEntryList(buf, 0)); status != fuse.OK {
				b.Fatal(status)
			}
		}
	})
}

// BenchmarkCopyUp opens lower files of 4 KiB for writing, each for the first time.
func BenchmarkCopyUp(b *testing.B) {
	b.ReportAllocs()
	var fs *FS
	var dir uint64
	for i := range b.N {
		b.StopTimer()
		if i%benchNames == 0 { // all names have been copied up
			fs = benchFS(b, 1)
			dir = benchLookup(b, fs, rootID, "dir")
		}
		in := fuse.OpenIn{InHeader: benchHeader(benchLookup(b, fs, dir, benchName(i))), Flags: unix.O_WRONLY}
		b.StartTimer()
		var out fuse.OpenOut
		if status := fs.Open(nil, &in, &out); status != fuse.OK {
			b.Fatal(status)
		}
		fs.Release(nil, &fuse.ReleaseIn{InHeader: in.InHeader, Fh: out.Fh})
	}
}
