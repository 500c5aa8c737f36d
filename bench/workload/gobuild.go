package workload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// go-build: a build in a container: compiler, sources and cache are all in the view.
func init() {
	register(func() Workload {
		return Workload{
			Name: "go-build", Group: "real",
			Doc: "build the go command with an empty cache, with compiler, sources and cache in the union",
			Layers: Recipe{Name: "goroot", FromTree: true, Build: func(b *Builder) error {
				dir, err := b.Layer()
				if err != nil {
					return err
				}
				if _, err := os.Stat(filepath.Join(b.Tree, "src/cmd/go")); err != nil {
					return fmt.Errorf("the source tree is not Go's: %w", err)
				}
				return exec.Command("cp", "-a", b.Tree, filepath.Join(dir, "go")).Run()
			}},
			Changes: true, Needs: []string{"cp"},
			Steps: []Step{{
				Name: "go-build", Cold: true,
				Run: func(e *Env) (int, error) {
					program := "cmd/go"
					if e.Scale < 1 {
						program = "internal/goarch" // needs no other package
					}
					root := e.path("go")
					env := []string{
						"GOROOT=" + root, "GOCACHE=" + e.path("cache"), "GOTMPDIR=" + e.Dir, "GOTOOLCHAIN=local", "GOFLAGS=",
						"GOENV=off", "GO111MODULE=on", "GOPROXY=off", "CGO_ENABLED=0", "GOTELEMETRY=off", "HOME=" + e.Dir,
						"PATH=" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH"),
					}
					_, err := command(filepath.Join(root, "src"), env, filepath.Join(root, "bin/go"), "build", "-o", e.path("built"), program)
					return 1, err
				},
			}},
		}
	})
}
