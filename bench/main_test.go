package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/unionfsd/unionfsd/bench"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

func TestMain(m *testing.M) {
	if os.Args[0] == bench.ClientName {
		os.Exit(bench.Client())
	}
	testfs.Main(m)
}

// program builds unionfsd, which is what serves and what runs in containers: as it is shipped, without cgo.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unionfsd")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/unionfsd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build unionfsd: %v\n%s", err, out)
	}
	return path
}
