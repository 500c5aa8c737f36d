package image

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// loader loads the archive args[1] into the store in args[0].
var loader = testfs.NewFunc("load", func(args []string, _ *bufio.Reader, _ io.Writer) error {
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = At(args[0]).Load(context.Background(), f, Options{})
	return err
})

// TestKilled kills a load at any time. The image is there with all that it has, or it is not there; what is left over, gc
// removes.
func TestKilled(t *testing.T) {
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("dir/%d", i)] = strings.Repeat("x", 10000)
	}
	whole, id := dockerArchive(t, "app:1", tarOf(t, files), layerTar(t, "dir/last", "1"))
	archive := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(archive, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s := testStore(t)
	if _, err := loader.Run(t, time.Minute, s.root, archive); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	img, err := s.Image(id)
	if err != nil {
		t.Fatal(err)
	}
	want := layersOf(t, img)

	seed := uint64(began.UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	there := 0
	for range 10 {
		s := testStore(t)
		p := loader.Start(t, s.root, archive)
		time.Sleep(time.Duration(r.Int64N(int64(took))))
		p.Kill()
		_ = p.Wait(time.Minute)
		images, err := s.Images()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range images {
			there++
			if d := testfs.Diff(want, layersOf(t, img)); d != "" {
				t.Errorf("an image that is not whole:\n%s", d)
			}
		}
		if _, _, err := s.GC(func() ([]string, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		patterns := []string{"incoming/*"}
		if len(images) == 0 {
			patterns = append(patterns, "layers/*", "images/blobs/sha256/*")
		}
		for _, pattern := range patterns {
			if left, _ := filepath.Glob(filepath.Join(s.root, pattern)); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		}
		if _, err := loader.Run(t, time.Minute, s.root, archive); err != nil {
			t.Errorf("load again: %v", err)
		}
	}
	t.Logf("there after %d of 10 kills", there)
}

// layersOf is what the layers of an image hold.
func layersOf(t *testing.T, img *Image) string {
	t.Helper()
	dirs, err := img.Dirs()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, dir := range dirs {
		text.WriteString(testfs.Fingerprint(dir, testfs.Options{Layer: true}))
	}
	return text.String()
}
