package layer_test

import (
	"testing"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) { testfs.Main(m) }
