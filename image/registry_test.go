package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// pushed is an image in a registry on loopback, before which get is called for each blob that is asked for; what it
// returns false for, it has answered.
func pushed(t *testing.T, get func(w http.ResponseWriter, r *http.Request, blob string) bool, layers ...[]byte) (name string, img *Image) {
	t.Helper()
	s := testStore(t)
	archive, _ := dockerArchive(t, "app:1", layers...)
	if _, err := s.Load(context.Background(), bytes.NewReader(archive), Options{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Image("app:1")
	if err != nil {
		t.Fatal(err)
	}
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var pushed bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, blob, ok := strings.Cut(r.URL.Path, "/blobs/"); ok && pushed && r.Method == http.MethodGet && !get(w, r, blob) {
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	name = strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	if _, err := s.Push(context.Background(), img, name); err != nil {
		t.Fatal(err)
	}
	pushed = true
	return name, img
}

// TestPullTogether pulls one image twice at once: nothing is downloaded twice, and nothing is left.
func TestPullTogether(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	both := make(chan bool)
	name, img := pushed(t, func(_ http.ResponseWriter, _ *http.Request, blob string) bool {
		mu.Lock()
		asked[blob]++
		mu.Unlock()
		<-both
		return true
	}, compressed(t, Gzip, layerTar(t, "f", strings.Repeat("x", 1<<20))), compressed(t, Gzip, layerTar(t, "g", "y")))
	s := testStore(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if got, _, err := s.Pull(context.Background(), name, Options{}); err != nil || got.ID != img.ID {
				t.Errorf("pulled %v, %v", got, err)
			}
		})
	}
	close(both)
	wg.Wait()
	for blob, n := range asked {
		if n != 1 {
			t.Errorf("blob %s was asked for %d times", blob, n)
		}
	}
	if left, _ := os.ReadDir(s.incoming()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPullAgain checks that what a failed pull has is not asked for again, and that what is there and wrong is.
func TestPullAgain(t *testing.T) {
	var mu sync.Mutex
	var missing string
	asked := map[string]int{}
	name, img := pushed(t, func(w http.ResponseWriter, _ *http.Request, blob string) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[blob]++
		if blob == missing {
			w.WriteHeader(http.StatusNotFound)
			return false
		}
		return true
	}, compressed(t, Gzip, layerTar(t, "f", "x")), compressed(t, Gzip, layerTar(t, "g", "y")))
	s := testStore(t)
	first, second := img.Manifest.Layers[0].Digest, img.Manifest.Layers[1].Digest
	missing = second.String()
	for had := int64(-1); had < img.Manifest.Layers[0].Size; { // which of the two is first is not said
		if _, _, err := s.Pull(context.Background(), name, Options{}); err == nil {
			t.Fatal("pulled an image of which a blob is missing")
		}
		if st, err := os.Stat(s.part(first)); err == nil {
			had = st.Size()
		}
	}
	mu.Lock()
	missing, asked[first.String()] = "", 0
	mu.Unlock()
	if err := os.WriteFile(s.part(second), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Pull(context.Background(), name, Options{}); err != nil || got.ID != img.ID {
		t.Errorf("pulled %v, %v", got, err)
	}
	if n := asked[first.String()]; n != 0 {
		t.Errorf("what was there was asked for %d times", n)
	}
	if left, _ := os.ReadDir(s.incoming()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestRegistry pushes an image, pulls it into another store, and takes up a download that breaks off.
func TestRegistry(t *testing.T) {
	s := testStore(t)
	archive, id := dockerArchive(t, "app:1", compressed(t, Gzip, layerTar(t, "f", strings.Repeat("x", 1<<20))))
	if _, err := s.Load(context.Background(), bytes.NewReader(archive), Options{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Image("app:1")
	if err != nil {
		t.Fatal(err)
	}
	blob := img.Manifest.Layers[0].Digest.String()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	broken, ranges := 0, []string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+blob) {
			ranges = append(ranges, r.Header.Get("Range"))
			if broken == 0 {
				broken++
				w.Header().Set("Content-Length", fmt.Sprint(img.Manifest.Layers[0].Size))
				rec := httptest.NewRecorder()
				reg.ServeHTTP(rec, r)
				_, _ = w.Write(rec.Body.Bytes()[:100]) // and the connection ends
				return
			}
		}
		reg.ServeHTTP(w, r)
	}))
	defer server.Close()
	name := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	digest, err := s.Push(context.Background(), img, name)
	if err != nil {
		t.Fatal(err)
	}
	other := testStore(t)
	pulled, got, err := other.Pull(context.Background(), name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if pulled.ID != id || got != digest {
		t.Errorf("pulled %s as %s, want %s as %s", pulled.ID, got, id, digest)
	}
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=100-") {
		t.Errorf("asked for the ranges %q, want the second from byte 100", ranges)
	}
	byDigest := name[:strings.LastIndexByte(name, ':')] + "@" + digest
	if _, err := other.Image(byDigest); err != nil {
		t.Error(err)
	}
	if _, _, err := other.Pull(context.Background(), byDigest, Options{Layer: func(_, status string) {
		if status != "Already exists" {
			t.Errorf("second pull: %s", status)
		}
	}}); err != nil {
		t.Error(err)
	}
	if _, _, err := other.Pull(context.Background(), name+"2", Options{}); err == nil {
		t.Error("pulled a tag that is not there")
	}
}
