// Bigimage writes an image to measure image tools with, as docker save does, to standard output: 20 layers, 100,000 files of
// 10 KB in the middle, 1.1 GB. The same bytes each time.
//
//	bigimage [-gzip] [-shell FILE] >big.tar
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	layers      = 20
	directories = 50 // in each layer
	files       = 99 // in each directory
	mean        = 10500
	largest     = 1 << 20
)

var (
	compressed = flag.Bool("gzip", false, "compress the layers")
	shell      = flag.String("shell", "", "`FILE` that becomes /bin/sh, linked statically")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	err := write(tar.NewWriter(out))
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		log.Fatal("bigimage: ", err)
	}
}

// blob is a file of the archive that is known by its digest.
func blob(w *tar.Writer, name string, data []byte) error {
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func write(w *tar.Writer) error {
	r := rand.New(rand.NewPCG(1, 1))
	pool := make([]byte, 4<<20) // which compresses to a half
	for i := range pool {
		pool[i] = byte(r.IntN(16) * (1 + i%7))
	}
	var diffIDs, names []string
	for l := range layers {
		var b bytes.Buffer
		sum := sha256.New()
		var z io.WriteCloser = nopCloser{&b}
		if *compressed {
			z = gzip.NewWriter(&b)
		}
		if err := layer(tar.NewWriter(io.MultiWriter(z, sum)), l, r, pool); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		name := fmt.Sprintf("%d/layer.tar", l)
		if err := blob(w, name, b.Bytes()); err != nil {
			return err
		}
		names = append(names, name)
		diffIDs = append(diffIDs, "sha256:"+hex.EncodeToString(sum.Sum(nil)))
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "created": time.Unix(1700000000, 0).UTC(),
		"config": map[string]any{"Cmd": []string{"/bin/sh"}}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return err
	}
	configName := digest(config) + ".json"
	if err := blob(w, configName, config); err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{"big:1"}, "Layers": names}})
	if err != nil {
		return err
	}
	if err := blob(w, "manifest.json", manifest); err != nil {
		return err
	}
	return w.Close()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// layer writes one layer: files in directories that have entries of their own.
func layer(w *tar.Writer, l int, r *rand.Rand, pool []byte) error {
	file := func(name string, mode int64, data []byte) error {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), ModTime: time.Unix(1700000000, 0)})
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	}
	dir := func(name string) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(1700000000, 0)})
	}
	if l == 0 && *shell != "" {
		data, err := os.ReadFile(*shell)
		if err == nil {
			err = dir("bin")
		}
		if err == nil {
			err = file("bin/sh", 0o755, data)
		}
		if err != nil {
			return err
		}
	}
	top := fmt.Sprintf("usr/share/%d", l)
	for _, name := range []string{"usr", "usr/share", top} {
		if err := dir(name); err != nil {
			return err
		}
	}
	for d := range directories {
		name := fmt.Sprintf("%s/%d", top, d)
		if err := dir(name); err != nil {
			return err
		}
		for f := range files {
			size := min(int(r.ExpFloat64()*mean), largest)
			from := r.IntN(len(pool) - size)
			if err := file(fmt.Sprintf("%s/%d", name, f), 0o644, pool[from:from+size]); err != nil {
				return err
			}
		}
	}
	return w.Close()
}
