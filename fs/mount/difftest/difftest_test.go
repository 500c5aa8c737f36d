package difftest_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/fs/mount/difftest"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

var (
	first   = flag.Int64("difftest.seed", 1, "the first seed")
	seeds   = flag.Int64("difftest.seeds", 8, "how many seeds")
	ops     = flag.Int("difftest.ops", 600, "how many operations for each seed")
	file    = flag.String("difftest.case", "", "run the case in this file, not those of seeds")
	options = flag.String("difftest.options", "", "mount options of both unions")
	shrink  = flag.Duration("difftest.shrink", 30*time.Second, "how long to look for a smaller case; 0 prints the case as it is")
)

var (
	kernel = mounttest.NewServer(overlayfs.Backend{})
	fuse   = mounttest.NewServer(union.Backend{})
	lazy   = mounttest.NewServer(union.Backend{LazyFrom: 1}).With("lazy=on")
)

// fuseOf is the union for a seed: half of them over io_uring, if the kernel offers it.
func fuseOf(seed int64) *mounttest.Server {
	if seed%2 == 0 {
		return fuse.With("io_uring=auto")
	}
	return fuse.With("io_uring=off")
}

func TestMain(m *testing.M) { testfs.Main(m) }

// TestDifferences compares the union with the kernel's overlayfs.
func TestDifferences(t *testing.T) {
	testfs.NeedRoot(t)
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := difftest.Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", *file, err)
		}
		compare(t, kernel, fuse, c)
		return
	}
	for seed := *first; seed < *first+*seeds; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			c := difftest.Generate(seed, *ops)
			c.Options = *options
			compare(t, kernel, fuseOf(seed), c)
			if t.Failed() {
				t.Logf("again: go test ./fs/mount/difftest -run TestDifferences -difftest.seed=%d -difftest.seeds=1 -difftest.ops=%d -difftest.options=%q", seed, *ops, *options)
			}
		})
	}
}

// TestIndex compares them with index=on.
func TestIndex(t *testing.T) {
	testfs.NeedRoot(t)
	for seed := *first; seed < *first+*seeds; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { compare(t, kernel, fuseOf(seed), difftest.GenerateLinks(seed, *ops)) })
	}
}

// TestLazyDifferences copies every file up lazily.
func TestLazyDifferences(t *testing.T) {
	testfs.NeedRoot(t)
	for seed := *first; seed < *first+*seeds/2; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { compare(t, kernel, lazy, difftest.Generate(seed, *ops)) })
	}
}

func compare(t *testing.T, a, b *mounttest.Server, c difftest.Case) {
	t.Helper()
	f, err := difftest.Run(t, a, b, c)
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return
	}
	if *shrink > 0 {
		c, f = difftest.Shrink(t, a, b, c, f, *shrink)
	}
	t.Errorf("%s and %s differ at %s", a.Name(), b.Name(), f.Report(a, b, c))
}

// TestStress lets several workers at once work on one union, and looks whether it shows what is on disk.
func TestStress(t *testing.T) {
	testfs.NeedRoot(t)
	for _, pair := range [][2]*mounttest.Server{{fuse, kernel}, {kernel, fuse}} {
		for seed := *first; seed < *first+*seeds; seed++ {
			t.Run(fmt.Sprint(pair[0].Name(), " seed", seed), func(t *testing.T) {
				c := difftest.Generate(seed, 2**ops)
				if seed%2 == 0 {
					c = difftest.GenerateLinks(seed, 2**ops)
				}
				f, err := difftest.Stress(t, pair[0], pair[1], c, 4)
				if err != nil {
					t.Fatal(err)
				}
				if f != nil {
					t.Errorf("%s\n%s", f.What, testfs.Diff(f.Sides[0], f.Sides[1]))
				}
			})
		}
	}
}

// TestInterchange mounts what one backend wrote with the other, in both directions.
func TestInterchange(t *testing.T) {
	t.Run("fuse then kernel", func(t *testing.T) { mounttest.Interchange(t, fuse, kernel) })
	t.Run("kernel then fuse", func(t *testing.T) { mounttest.Interchange(t, kernel, fuse) })
}
