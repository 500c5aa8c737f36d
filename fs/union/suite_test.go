package union_test

import (
	"testing"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/union"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

var server = mounttest.NewServer(union.Backend{}, mounttest.LiveLower)

func TestMain(m *testing.M) { testfs.Main(m) }

func TestSuite(t *testing.T) { mounttest.Run(t, server) }

// TestSuiteWithoutPassthrough is about what another way to read and write files can break.
func TestSuiteWithoutPassthrough(t *testing.T) {
	mounttest.Run(t, server.With("passthrough=off"), "copyup", "open", "data", "stale", "perms", "readonly")
}

func TestRealTree(t *testing.T) { mounttest.RealTree(t, server) }
