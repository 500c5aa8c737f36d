package union_test

import (
	"testing"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

var server = mounttest.NewServer(union.Backend{}, mounttest.LiveLower)

var lazyServer = mounttest.NewServer(union.Backend{LazyFrom: 1}).With("lazy=on")

func TestMain(m *testing.M) { testfs.Main(m) }

func TestSuite(t *testing.T) { mounttest.Run(t, server) }

// TestSuiteWithoutPassthrough is about what another way to read and write files can break.
func TestSuiteWithoutPassthrough(t *testing.T) {
	mounttest.Run(t, server.With("passthrough=off"), "copyup", "open", "data", "stale", "perms", "readonly")
}

// TestSuiteLazy copies every file up lazily, with the filler and without.
func TestSuiteLazy(t *testing.T) {
	for _, mode := range []string{"lazy=on", "lazy=keep"} {
		t.Run(mode, func(t *testing.T) {
			mounttest.Run(t, lazyServer.With(mode), "copyup", "rename", "link", "attr", "times", "open", "data", "stale", "perms")
		})
	}
}

func TestRealTree(t *testing.T) { mounttest.RealTree(t, server) }
