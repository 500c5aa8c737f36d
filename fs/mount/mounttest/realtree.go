package mounttest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// RealTree does with a large tree what people do: the source of Go is copied into a union of s over a part of it, is
// compared with the original, a program is built from it with the build cache in the union too, and all of it is removed.
func RealTree(t *testing.T, s *Server) {
	testfs.NeedRoot(t)
	goroot := strings.TrimSpace(command(t, nil, "go", "env", "GOROOT"))
	u := &union{TB: t, server: s, editsLower: true}
	defer u.finish()
	// On a tmpfs: overlayfs writes the whole file system of the upper layer out when it is unmounted.
	tmpfs := testfs.Tmpfs(t)
	for _, d := range []string{"merged", "upper", "work", "lower0/go/src", "lower1/go"} {
		if err := os.MkdirAll(filepath.Join(tmpfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u.dir, u.spec.Upper, u.spec.Work = tmpfs+"/merged", tmpfs+"/upper", tmpfs+"/work"
	u.spec.Lower = []string{tmpfs + "/lower0", tmpfs + "/lower1"}
	command(t, nil, "cp", "-a", filepath.Join(goroot, "src/go"), u.low(0, "go/src/"))
	u.remount()

	for _, part := range []string{"src", "pkg", "go.env", "VERSION"} {
		command(t, nil, "cp", "-a", filepath.Join(goroot, part), u.path("go"))
	}
	command(t, nil, "diff", "-r", "--no-dereference", filepath.Join(goroot, "src"), u.path("go/src"))

	env := append(os.Environ(), "GOROOT="+u.path("go"), "GOCACHE="+u.path("cache"), "GOFLAGS=", "GOTOOLCHAIN=local", "CGO_ENABLED=0")
	command(t, env, "go", "build", "-C", u.path("go/src"), "-o", u.path("gofmt"), "./cmd/gofmt")
	if out := command(t, nil, u.path("gofmt"), "-l", u.path("go/src/fmt")); out != "" {
		t.Errorf("the gofmt that was built would change %q", out)
	}

	command(t, nil, "rm", "-rf", u.path("go"), u.path("cache"), u.path("gofmt"))
	u.merged("")
	u.unmount()
	u.upper("whiteout go")
}

// command runs a program and returns what it prints.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
