package cow_test

import (
	"bytes"
	"math/rand"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/cow"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// lazyCopy publishes a lazy copy of name, and opens it.
func (b *bench) lazyCopy(name string) {
	b.t.Helper()
	staged, lazy, err := b.copier.BuildLazy(b.source(name), cow.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	if staged == nil || !lazy {
		if staged != nil {
			staged.Discard()
		}
		testfs.Skip(b.t, "the file system shares blocks or does not tell which it has")
	}
	defer staged.Discard()
	if err := staged.Publish(b.stack.Upper.Root, name, layer.Add); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) openLazy(name string) *cow.Lazy {
	b.t.Helper()
	upper, err := b.stack.Upper.Root.At(name).Open(unix.O_RDWR)
	if err != nil {
		b.t.Fatal(err)
	}
	lower, err := b.stack.Lowers[0].Root.At(name).Open(unix.O_RDONLY)
	if err != nil {
		b.t.Fatal(err)
	}
	l, err := cow.OpenLazy(upper, lower, b.source(name).Stat.Size)
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// TestLazyIsTheFile does random writes, also beyond the end, fills now and then, and opens the copy anew as after a
// crash. What is read is always what a plain file would have.
func TestLazyIsTheFile(t *testing.T) {
	for seed := range int64(20) {
		r := rand.New(rand.NewSource(seed))
		b := newBench(t, `file n`, testfs.Layers(t, 3))
		// Data and holes in turns, and an end in the middle of a block.
		size := 64<<10 + r.Intn(300<<10)
		want := make([]byte, size)
		fd, err := unix.Open(b.spec.Lower[0]+"/n", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < size; off += 32 << 10 {
			if r.Intn(3) > 0 {
				piece := want[off:min(size, off+32<<10)]
				r.Read(piece)
				if _, err := unix.Pwrite(fd, piece, int64(off)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		b.lazyCopy("n")
		l := b.openLazy("n")
		for range 60 {
			switch r.Intn(12) {
			case 0:
				l.Close()
				l = b.openLazy("n")
			case 1, 2:
				if _, err := l.Fill(); err != nil {
					t.Fatal(err)
				}
			case 3, 4, 5, 6:
				off := r.Intn(len(want) + 9000)
				piece := make([]byte, 1+r.Intn(20000))
				r.Read(piece)
				if err := l.WriteAt(piece, int64(off)); err != nil {
					t.Fatal(err)
				}
				if more := off + len(piece) - len(want); more > 0 {
					want = append(want, make([]byte, more)...)
				}
				copy(want[off:], piece)
			default:
				off := r.Intn(len(want) + 100)
				got := make([]byte, 1+r.Intn(100000))
				n, err := l.ReadAt(got, int64(off))
				if err != nil {
					t.Fatal(err)
				}
				if expect := want[min(off, len(want)):min(off+len(got), len(want))]; !bytes.Equal(got[:n], expect) {
					t.Fatalf("seed %d: read %d bytes at %d, of %d: not what was written", seed, n, off, len(want))
				}
			}
		}
		for more := true; more; {
			if more, err = l.Fill(); err != nil {
				t.Fatal(err)
			}
		}
		if left := l.Left(); left != 0 {
			t.Errorf("seed %d: %d bytes left", seed, left)
		}
		got := make([]byte, len(want)+1)
		n, err := unix.Pread(l.FD(), got, 0)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("seed %d: the copy alone is not the file: %d bytes, %v", seed, n, err)
		}
		l.Close()
	}
}

func TestFillKeepsTimesAndHoles(t *testing.T) {
	b := newBench(t, `file n size=67108864 data=4194304:"middle" mtime=1500000000`, testfs.Layers(t, 3))
	b.lazyCopy("n")
	l := b.openLazy("n")
	defer l.Close()
	if err := l.WriteAt([]byte("x"), 10<<20); err != nil {
		t.Fatal(err)
	}
	if err := layer.RefFD(l.FD()).Utimens([2]unix.Timespec{{Sec: 5}, {Sec: 6}}); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = l.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.FD(), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mtim.Sec != 6 || st.Blocks*512 > 1<<20 {
		t.Errorf("mtime %d, %d KiB", st.Mtim.Sec, st.Blocks/2)
	}
}

func TestCapabilitiesAreNotCopiedLazily(t *testing.T) {
	b := newBench(t, `file n size=8192 security.capability="\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`, testfs.Layers(t, 3))
	staged, _, err := b.copier.BuildLazy(b.source("n"), cow.Options{})
	if err != nil || staged != nil {
		t.Errorf("a lazy copy, %v", err)
	}
}
