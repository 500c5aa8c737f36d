package union_test

import (
	"os"
	"strings"
	"testing"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/fs/union/transport"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

var server = mounttest.NewServer(union.Backend{}, mounttest.LiveLower)

var lazyServer = mounttest.NewServer(union.Backend{LazyFrom: 1}).With("lazy=on")

func TestMain(m *testing.M) { testfs.Main(m) }

func TestSuite(t *testing.T) { mounttest.Run(t, server.With("io_uring=off")) }

// TestSuiteIOUring is TestSuite over the other transport.
func TestSuiteIOUring(t *testing.T) {
	needIOUring(t)
	mounttest.Run(t, server.With("io_uring=on"))
}

// needIOUring skips the test unless the kernel offers FUSE over io_uring.
func needIOUring(t *testing.T) {
	testfs.NeedRoot(t)
	text, err := os.ReadFile(transport.Parameter)
	if err != nil {
		testfs.Skip(t, "the kernel has no FUSE over io_uring: %v", err)
	}
	if strings.TrimSpace(string(text)) != "Y" {
		testfs.Skip(t, "FUSE over io_uring is switched off: echo Y > %s", transport.Parameter)
	}
}

// TestSuiteWithoutPassthrough is about what another way to read and write files can break.
func TestSuiteWithoutPassthrough(t *testing.T) {
	mounttest.Run(t, server.With("passthrough=off"), "copyup", "open", "data", "stale", "perms", "readonly")
	t.Run("immutable", func(t *testing.T) { // opened without a request, where nothing can be written
		mounttest.Run(t, server.With("passthrough=off,lower=immutable"), "readonly", "dataonly")
	})
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
