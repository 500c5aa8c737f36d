package overlayfs_test

import (
	"testing"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
)

var server = mounttest.NewServer(overlayfs.Backend{})

func TestSuite(t *testing.T) { mounttest.Run(t, server) }

func TestRealTree(t *testing.T) { mounttest.RealTree(t, server) }
