package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image/layertar"
	"github.com/unionfsd/unionfsd/internal/testfs"
	"github.com/unionfsd/unionfsd/internal/testunion"
)

func TestMain(m *testing.M) { testfs.Main(m) }

// TestChainIDs checks the chain ids of an image of the course, nginx of August 2021, as Docker showed them.
func TestChainIDs(t *testing.T) {
	diffs := []string{
		"7e718b9c0c8c2e6420fe9c4d1d551088e314fe923dce4b2caf75891d82fb227d",
		"4dc529e519c4390939b1616595683c89465782bb7d9fc7b90b30cc1e95bc723a",
		"23c959acc3d0eb744031aef67adf6ceb5120a19c8869727d588f7d9dabd75b09",
		"15aac1be5f02f2188ab40430b28a5f79be1bcb805db315bbe4d70f70aeabaa36",
		"974e9faf62f1a3c3210e3904420ffec1dc351b756ac33024f2dd2683bf44c370",
		"64ee8c6d0de0cfd019841b29c8cb18f4ab38e4687f7784866b840d5b2c31c8b9",
		"84185e3de947251e67947cf9f1d7036642e3f9e4f70342330825f3ed92c169ea",
	}
	want := []string{
		"7e718b9c0c8c2e6420fe9c4d1d551088e314fe923dce4b2caf75891d82fb227d",
		"11126fda59f7f4bf9bf08b9d24c9ea45a1194f3d61ae2a96af744c97eae71cbf",
		"d5955c2e658d1432abb023d7d6d1128b0aa12481b976de7cbde4c7a31310f29b",
		"704bf100d7f16255a2bc92e925f7007eef0bd3947af4b860a38aaffc3f992eae",
		"f85cfdc7ca97d8856cd4fa916053084e2e31c7e53ed169577cef5cb1b8169ccb",
		"3444fb58dc9e8338f6da71c1040e8ff532f25fab497312f95dcee0f756788a84",
		"ffb6a124fc8fd5286f0effc68d9f106794e816ce5a21e0033330904ca996115e",
	}
	var hashes []v1.Hash
	for _, d := range diffs {
		hashes = append(hashes, v1.Hash{Algorithm: "sha256", Hex: d})
	}
	for i, got := range ChainIDs(hashes) {
		if got != "sha256:"+want[i] {
			t.Errorf("layer %d: %s, want %s", i, got, want[i])
		}
	}
}

// testStore is an empty store on a file system of its own, where to write all to disk takes no time.
func testStore(t *testing.T) *Store {
	testfs.NeedRoot(t)
	return At(filepath.Join(testfs.Tmpfs(t), "state"))
}

// layerTar is a layer with one file.
func layerTar(t *testing.T, name, data string) []byte {
	t.Helper()
	return tarOf(t, map[string]string{name: data})
}

func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = io.WriteString(w, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// dockerArchive is an image as docker save wrote it until version 24: the layers uncompressed, and no manifest of OCI.
func dockerArchive(t *testing.T, name string, layers ...[]byte) (archive []byte, id string) {
	t.Helper()
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}, Created: v1.Time{Time: time.Unix(1600000000, 0)}}
	files := map[string]string{}
	img := dockerImage{RepoTags: []string{name}}
	for i, l := range layers {
		plain, err := decompress(bytes.NewReader(l))
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: hash(all)})
		config.History = append(config.History, v1.History{CreatedBy: fmt.Sprintf("step %d", i)})
		path := fmt.Sprintf("%d/layer.tar", i)
		files[path] = string(l)
		img.Layers = append(img.Layers, path)
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	img.Config = hash(text) + ".json"
	files[img.Config] = string(text)
	manifest, err := json.Marshal([]dockerImage{img})
	if err != nil {
		t.Fatal(err)
	}
	files["manifest.json"] = string(manifest)
	return tarOf(t, files), "sha256:" + hash(text)
}

func compressed(t *testing.T, c Compression, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress(&b, c)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// content is what files of the store hold, without locks and times.
func content(t *testing.T, s *Store) string {
	t.Helper()
	return testfs.Fingerprint(s.root, testfs.Options{Layer: true})
}

func TestLoad(t *testing.T) {
	s := testStore(t)
	base := layerTar(t, "base", "b")
	archive, id := dockerArchive(t, "app:1", base, compressed(t, Gzip, layerTar(t, "gz", "g")), compressed(t, Zstd, layerTar(t, "zst", "z")))
	var done, total int64
	names, err := s.Load(context.Background(), bytes.NewReader(archive), Options{Progress: func(d, t int64) { done, total = d, t }})
	if err != nil {
		t.Fatal(err)
	}
	if done == 0 || done != total {
		t.Errorf("told of %d bytes of %d", done, total)
	}
	if len(names) != 1 || names[0] != "app:1" {
		t.Errorf("names %q", names)
	}
	for _, arg := range []string{"app:1", "docker.io/library/app:1", id, strings.TrimPrefix(id, "sha256:")[:6]} {
		img, err := s.Image(arg)
		if err != nil {
			t.Fatal(err)
		}
		if img.ID != id {
			t.Errorf("%s: id %s, want %s", arg, img.ID, id)
		}
	}
	img, _ := s.Image("app:1")
	dirs, err := img.Dirs()
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range []string{"zst", "gz", "base"} {
		if _, err := os.Stat(filepath.Join(dirs[i], file)); err != nil {
			t.Error(err)
		}
	}

	// A second image over the same base, the base compressed: it is unpacked no second time.
	status := map[string]string{}
	second, _ := dockerArchive(t, "app:2", compressed(t, Gzip, base), layerTar(t, "other", "o"))
	if _, err := s.Load(context.Background(), bytes.NewReader(second), Options{Layer: func(id, what string) { status[what] = id }}); err != nil {
		t.Fatal(err)
	}
	if len(status) != 2 || status["Already exists"] == "" || status["Unpacked"] == "" {
		t.Errorf("statuses %v", status)
	}
	layers, _ := filepath.Glob(filepath.Join(s.layers(), "*", "diff"))
	if len(layers) != 4 {
		t.Errorf("%d layers, want 4", len(layers))
	}

	// What is saved is what was loaded, and loads to the same.
	var saved bytes.Buffer
	if err := s.Save(&saved, []*Image{img}); err != nil {
		t.Fatal(err)
	}
	other := testStore(t)
	if _, err := other.Load(context.Background(), bytes.NewReader(saved.Bytes()), Options{}); err != nil {
		t.Fatal(err)
	}
	again, err := other.Image("app:1")
	if err != nil || again.ID != id || again.Digest != img.Digest {
		t.Errorf("loaded again: %v, %v", again, err)
	}
}

// TestDamaged checks that what is damaged is refused with an error, and leaves nothing.
func TestDamaged(t *testing.T) {
	good := layerTar(t, "f", strings.Repeat("x", 4096))
	gz := compressed(t, Gzip, good)
	archive := func(t *testing.T, change func(files map[string]string)) []byte {
		whole, _ := dockerArchive(t, "app:1", gz)
		files := map[string]string{}
		r := tar.NewReader(bytes.NewReader(whole))
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			data, _ := io.ReadAll(r)
			files[h.Name] = string(data)
		}
		change(files)
		return tarOf(t, files)
	}
	tests := []struct {
		name    string
		archive []byte
		o       Options
		err     string
	}{
		{"not an archive", []byte(strings.Repeat("rubbish ", 200)), Options{}, "read archive"},
		{"empty", nil, Options{}, "neither manifest.json nor index.json"},
		{"a root file system", layerTar(t, "bin/sh", "x"), Options{}, "use unionfsd import"},
		{"cut off", gz[:len(gz)/2], Options{}, "read archive"},
		{"manifest is no JSON", archive(t, func(f map[string]string) { f["manifest.json"] = "{" }), Options{}, "manifest.json"},
		{"layer is missing", archive(t, func(f map[string]string) { delete(f, "0/layer.tar") }), Options{}, "is missing"},
		{"another layer", archive(t, func(f map[string]string) { f["0/layer.tar"] = string(layerTar(t, "g", "y")) }), Options{}, "damaged"},
		{"layer is cut off", archive(t, func(f map[string]string) { f["0/layer.tar"] = string(gz[:len(gz)-20]) }), Options{}, "layer "},
		{"layer with more behind", archive(t, func(f map[string]string) { f["0/layer.tar"] += "more" }), Options{}, "layer "},
		{"bytes behind the end of a layer", archive(t, func(f map[string]string) {
			f["0/layer.tar"] = string(compressed(t, Gzip, append(bytes.Clone(good), "hidden"...)))
		}), Options{}, "damaged"},
		{"hostile layer", func() []byte { a, _ := dockerArchive(t, "app:1", layerTar(t, "../out", "x")); return a }(), Options{}, "out of the archive"},
		{"bomb", func() []byte {
			a, _ := dockerArchive(t, "app:1", compressed(t, Gzip, layerTar(t, "f", strings.Repeat("0", 1<<22))))
			return a
		}(), Options{Limits: layertar.Limits{Bytes: 1 << 20}}, "larger than the limit"},
		{"bad name", func() []byte { a, _ := dockerArchive(t, "../APP", good); return a }(), Options{}, "image name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			first, _ := dockerArchive(t, "good:1", layerTar(t, "good", "g"))
			if _, err := s.Load(context.Background(), bytes.NewReader(first), Options{}); err != nil {
				t.Fatal(err)
			}
			before := content(t, s)
			_, err := s.Load(context.Background(), bytes.NewReader(tt.archive), tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if d := testfs.Diff(before, content(t, s)); d != "" {
				t.Errorf("left in the store:\n%s", d)
			}
		})
	}
}

func TestUnknownTypes(t *testing.T) {
	s := testStore(t)
	dir := t.TempDir()
	d := v1.Descriptor{MediaType: types.MediaType("application/vnd.example"), Size: 2, Digest: v1.Hash{Algorithm: "sha256", Hex: hash([]byte("{}"))}}
	index, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{d}})
	_ = os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755)
	_ = os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Digest.Hex), []byte("{}"), 0o644)
	_ = os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644)
	if _, err := s.LoadDir(context.Background(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "not that of an image") {
		t.Errorf("error %v", err)
	}
}

// TestCommit checks the layer and the history that a commit adds.
func TestCommit(t *testing.T) {
	s := testStore(t)
	archive, _ := dockerArchive(t, "app:1", tarOf(t, map[string]string{"bin/tar": "t", "bin/sh": "s"}))
	if _, err := s.Load(context.Background(), bytes.NewReader(archive), Options{}); err != nil {
		t.Fatal(err)
	}
	parent, err := s.Image("app:1")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := parent.Dirs()
	if err != nil {
		t.Fatal(err)
	}
	up := testfs.Layers(t, 2)
	testfs.Write(t, up[0], "dir bin\nwhiteout bin/tar\nfile new \"n\"")
	stack, err := layer.OpenReadOnly(layer.Spec{Lower: dirs, Upper: up[0], Work: up[1]})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	change := Change{Name: "app:2", CreatedBy: "sh", Comment: "c", Compression: Gzip, Created: time.Unix(1700000000, 0)}
	img, err := s.Commit(context.Background(), parent, stack, change, Options{})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := testfs.Canonical("dir bin\nwhiteout bin/tar\nfile new \"n\"")
	if d := testfs.Diff(want, testfs.Fingerprint(layers[1].Dir, testfs.Options{Layer: true})); d != "" {
		t.Error(d)
	}
	h := img.Config.History
	if len(h) != 2 || h[1].CreatedBy != "sh" || h[1].EmptyLayer || img.Parent != "" && img.Parent != parent.ID {
		t.Errorf("history %+v", h)
	}
	again, err := s.Commit(context.Background(), parent, stack, change, Options{})
	if err != nil || again.ID != img.ID {
		t.Errorf("the same changes are %v, %v", again, err)
	}

	// The image that had the name goes on without it; gc keeps what images have.
	if err := s.Tag(img, "app:1"); err != nil {
		t.Fatal(err)
	}
	list, err := s.Images()
	if err != nil || len(list) != 2 {
		t.Fatalf("%d images, %v", len(list), err)
	}
	none := func() ([]string, error) { return nil, nil }
	if n, _, err := s.GC(none); n != 0 || err != nil {
		t.Errorf("gc removed %d layers, %v", n, err)
	}
	held, err := s.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.GC(none); err != ErrHeld {
		t.Errorf("gc beside a user: %v", err)
	}
	held.Close()
	for _, name := range []string{"app:1", "app:2", parent.ID} {
		img, err := s.Image(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Remove(img, name, func() error { return nil }); err != nil {
			t.Error(err)
		}
	}
	if n, _, err := s.GC(func() ([]string, error) { return []string{layers[0].Dir}, nil }); n != 1 || err != nil {
		t.Errorf("gc removed %d layers, %v; want 1, since one is in use", n, err)
	}
}

// TestDependent loads an image with a layer that depends on the one below: it is the same layer in each image, and what
// depends is in each image its own.
func TestDependent(t *testing.T) {
	s := testStore(t)
	var upper bytes.Buffer
	w := tar.NewWriter(&upper)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeLink, Name: "link", Linkname: "bin/sh"},
		{Typeflag: tar.TypeReg, Name: "bin/new", Mode: 0o644},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	for _, shell := range []string{"dash", "bash"} {
		archive, _ := dockerArchive(t, "app:"+shell, tarOf(t, map[string]string{"bin/sh": shell}), upper.Bytes())
		if _, err := s.Load(context.Background(), bytes.NewReader(archive), Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, shell := range []string{"dash", "bash"} {
		img, err := s.Image("app:" + shell)
		if err != nil {
			t.Fatal(err)
		}
		dirs, err := img.Dirs()
		if err != nil {
			t.Fatal(err)
		}
		merged := testunion.Mount(t, layer.Spec{Lower: dirs})
		if got, err := os.ReadFile(filepath.Join(merged, "link")); string(got) != shell || err != nil {
			t.Errorf("%s: link is %q, %v", shell, got, err)
		}
		testunion.Unmount(t, merged)
	}
	diffs, _ := filepath.Glob(filepath.Join(s.layers(), "*", "diff"))
	if len(diffs) != 5 { // two base layers, the one above, and what that lacks in each image
		t.Errorf("layers %q", diffs)
	}

	// What is missing is an error, and comes again.
	img, _ := s.Image("app:bash")
	chain := ChainIDs(img.Config.RootFS.DiffIDs)[1]
	if err := os.RemoveAll(filepath.Join(s.layers(), chainName(chain))); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Dirs(); err == nil || !strings.Contains(err.Error(), "load or pull the image again") {
		t.Errorf("error %v", err)
	}
	archive, _ := dockerArchive(t, "app:bash", tarOf(t, map[string]string{"bin/sh": "bash"}), upper.Bytes())
	if _, err := s.Load(context.Background(), bytes.NewReader(archive), Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Dirs(); err != nil {
		t.Error(err)
	}

	for _, name := range []string{"app:dash", "app:bash"} {
		img, err := s.Image(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Remove(img, name, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := s.GC(func() ([]string, error) { return nil, nil }); n != 3 || err != nil {
		t.Errorf("gc removed %d layers, %v", n, err)
	}
	if left, _ := os.ReadDir(s.layers()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	twice, _ := dockerArchive(t, "twice:1", tarOf(t, map[string]string{"bin/sh": "dash"}), upper.Bytes(), layerTar(t, "bin/sh", "bash"), upper.Bytes())
	if _, err := s.Load(context.Background(), bytes.NewReader(twice), Options{}); err != nil {
		t.Fatal(err)
	}
	again, err := s.Image("twice:1")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := again.Dirs()
	if err != nil {
		t.Fatal(err)
	}
	merged := testunion.Mount(t, layer.Spec{Lower: dirs})
	if got, err := os.ReadFile(filepath.Join(merged, "link")); string(got) != "bash" || err != nil {
		t.Errorf("twice: link is %q, %v", got, err)
	}
	testunion.Unmount(t, merged)

	alone, _ := dockerArchive(t, "alone:1", upper.Bytes())
	if _, err := s.Load(context.Background(), bytes.NewReader(alone), Options{}); err == nil || !strings.Contains(err.Error(), "no layer below") {
		t.Errorf("a link to nothing: %v", err)
	}
}

// TestDocker finds images in a store such as Docker's overlay2 driver has.
func TestDocker(t *testing.T) {
	root := t.TempDir()
	db := filepath.Join(root, "image/overlay2")
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Docker(root, "app"); err == nil || !strings.Contains(err.Error(), "no overlay2 store") {
		t.Errorf("error %v", err)
	}
	config := v1.ConfigFile{Config: v1.Config{Cmd: []string{"sh"}}, RootFS: v1.RootFS{Type: "layers"}}
	for _, layer := range []string{"a", "b"} {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: hash([]byte(layer))})
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	id := hash(text)
	put(filepath.Join(db, "imagedb/content/sha256", id), string(text))
	put(filepath.Join(db, "repositories.json"), fmt.Sprintf(`{"Repositories":{"app":{"app:latest":"sha256:%s"}}}`, id))
	for i, chain := range ChainIDs(config.RootFS.DiffIDs) {
		put(filepath.Join(db, "layerdb/sha256", strings.TrimPrefix(chain, "sha256:"), "cache-id"), fmt.Sprintf("cache%d", i))
	}
	for _, arg := range []string{"app", "docker.io/library/app:latest", "sha256:" + id, id[:8]} {
		img, err := Docker(root, arg)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{root + "/overlay2/cache1/diff", root + "/overlay2/cache0/diff"}
		if img.ID != "sha256:"+id || img.Config.Cmd[0] != "sh" || strings.Join(img.Dirs, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %+v", arg, img)
		}
	}
	if _, err := Docker(root, "other"); err == nil {
		t.Error("found an image that is not there")
	}
}
