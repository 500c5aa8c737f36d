package difftest_test

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/mount/difftest"
	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// plain is a wrong backend on purpose: it shows the upper layer and no lower one.
type plain struct{ fd int }

var wrong = mounttest.NewServer(plain{})

func (plain) Name() string                               { return "plain" }
func (plain) Supports(context.Context, layer.Spec) error { return nil }
func (p plain) Served() bool                             { return false }
func (p plain) FD() int                                  { return p.fd }
func (p plain) Wait() error                              { return nil }
func (p plain) Release() error                           { return unix.Close(p.fd) }
func (p plain) Close() error                             { return nil }
func (plain) Open(_ context.Context, spec layer.Spec) (mount.View, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, spec.Upper, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	return plain{fd}, err
}

func (p plain) Attach(target string) error {
	defer unix.Close(p.fd)
	return unix.MoveMount(p.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// TestSame: the kernel does not differ from itself, so what is compared is determined by the case.
func TestSame(t *testing.T) {
	testfs.NeedRoot(t)
	for seed := int64(1); seed <= 3; seed++ {
		f, err := difftest.Run(t, kernel, kernel, difftest.Generate(seed, 500))
		if err != nil {
			t.Fatal(err)
		}
		if f != nil {
			t.Errorf("seed %d: %s", seed, f.Report(kernel, kernel, difftest.Generate(seed, 500)))
		}
	}
}

// TestFindsAndShrinks: a backend that is wrong is found, and the case made small.
func TestFindsAndShrinks(t *testing.T) {
	testfs.NeedRoot(t)
	c := difftest.Generate(1, 300)
	f, err := difftest.Run(t, kernel, wrong, c)
	if err != nil || f == nil {
		t.Fatalf("no difference was found (%v)", err)
	}
	small, f := difftest.Shrink(t, kernel, wrong, c, f, time.Minute)
	if len(small.Ops) != 1 || len(small.Lower) != 1 || strings.Count(small.Lower[0], "\n") > 3 {
		t.Errorf("not shrunk to one operation on one layer:\n%s", small)
	}
	again, err := difftest.Run(t, kernel, wrong, small)
	if err != nil || again == nil || !reflect.DeepEqual(again, f) {
		t.Errorf("the shrunk case gives %v (%v), not %v", again, err, f)
	}
}

func TestCaseRoundTrip(t *testing.T) {
	for seed := range int64(20) {
		c := difftest.Generate(seed, 200)
		if short := difftest.Generate(seed, 50); !reflect.DeepEqual(short.Ops, c.Ops[:50]) {
			t.Errorf("seed %d: the operations depend on how many there are", seed)
		}
		again, err := difftest.Parse(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("seed %d: not the same after a round trip (%v):\n%s", seed, err, c)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "no lower layer",
		"-- lower0 --\n-- ops --\nfly \"a\"\n": "unknown kind",
		"-- lower0 --\n-- ops --\nmkdir a\n":   "invalid syntax",
	} {
		if _, err := difftest.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
