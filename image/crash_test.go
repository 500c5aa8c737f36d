package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

// TestInterrupted ends a load in the middle of the archive.
func TestInterrupted(t *testing.T) {
	s := testStore(t)
	first, _ := dockerArchive(t, "good:1", layerTar(t, "good", "g"))
	if _, err := s.Load(context.Background(), bytes.NewReader(first), Options{}); err != nil {
		t.Fatal(err)
	}
	before := content(t, s)
	second, _ := dockerArchive(t, "app:1", layerTar(t, "f", strings.Repeat("x", 1<<20)), layerTar(t, "g", "y"))
	ctx, cancel := context.WithCancel(context.Background())
	r := io.MultiReader(bytes.NewReader(second[:1<<19]), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }), bytes.NewReader(second[1<<19:]))
	if _, err := s.Load(ctx, r, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if d := testfs.Diff(before, content(t, s)); d != "" {
		t.Errorf("left in the store:\n%s", d)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

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
