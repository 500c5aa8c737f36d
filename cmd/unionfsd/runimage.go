package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image"
)

// source is what a container is made of: layers, and how an image says that programs are to be run in them.
type source struct {
	spec   layer.Spec // without an upper layer
	name   string     // what to call it
	image  string     // its id
	config image.Config
	argv   []string // what follows the image on the command line
}

// source is what the flags and the arguments say a container is made of.
func (a *app) source(f runFlags, args []string) (s source, err error) {
	dirs := f.directories()
	switch {
	case f.graphDriver != "" && dirs:
		return s, errors.New("--graphdriver goes with neither --rootfs nor -l; drop one")
	case f.graphDriver != "":
		s, err = graphDriverSource(f.graphDriver, args)
	case !dirs && strings.HasPrefix(args[0], "docker:"):
		s, err = dockerSource(f.dockerRoot, args)
	case !dirs:
		s, err = a.imageSource(args)
	default:
		if s.spec, err = f.spec(); err == nil {
			s.name = s.spec.Lower[0]
		}
		s.argv = args
	}
	if err != nil {
		return s, err
	}
	if !dirs {
		s.spec.Upper, s.spec.Work = f.upper, f.work
		if s.spec, err = absolute(s.spec); err != nil {
			return s, err
		}
	}
	if f.entrypoint != "" {
		s.config.Entrypoint, s.config.Cmd = []string{f.entrypoint}, nil
	}
	return s, s.command()
}

// hold keeps the layers of an image from being removed until it is closed.
func (f runFlags) hold(a *app) (io.Closer, error) {
	if f.directories() {
		return io.NopCloser(nil), nil
	}
	return a.holdImages()
}

// directories reports whether directories are named as layers, and not an image.
func (f runFlags) directories() bool { return f.rootfs != "" || len(f.lower) > 0 }

// holdImages keeps layers of images from being removed until it is closed.
func (a *app) holdImages() (io.Closer, error) {
	store, err := a.imageStore()
	if err != nil {
		return nil, err
	}
	return store.Hold()
}

// imageSource is the source of "run IMAGE [COMMAND...]".
func (a *app) imageSource(args []string) (source, error) {
	img, err := a.image(args[0])
	if errors.Is(err, image.ErrNoImage) {
		err = fmt.Errorf("%w; for directories pass --rootfs DIR, or -l DIR for each layer", err)
	}
	if err != nil {
		return source{}, err
	}
	s := source{name: args[0], image: img.ID, config: img.Config.Config, argv: args[1:]}
	s.spec, err = imageSpec(img)
	return s, err
}

// dockerSource is the source of "run docker:NAME [COMMAND...]".
func dockerSource(root string, args []string) (source, error) {
	img, err := image.Docker(root, strings.TrimPrefix(args[0], "docker:"))
	if err != nil {
		return source{}, err
	}
	return source{name: args[0], config: img.Config, argv: args[1:], spec: layer.Spec{Lower: img.Dirs}}, nil
}

// imageSpec is the union of the layers of an image.
func imageSpec(img *image.Image) (layer.Spec, error) {
	dirs, err := img.Dirs()
	if err != nil {
		return layer.Spec{}, err
	}
	spec := layer.Spec{Lower: dirs}
	spec.Options.UserXattr, err = img.UserXattr()
	return spec, err
}

// command makes argv what is to be run: the entry point of the image, and what it says or else what was asked for.
func (s *source) command() error {
	if len(s.argv) == 0 {
		s.argv = s.config.Cmd
	}
	s.argv = append(append([]string{}, s.config.Entrypoint...), s.argv...)
	if len(s.argv) == 0 {
		return errors.New("the image says no command to run; name one behind it")
	}
	return nil
}

// withConfig lets the image say what the flags leave open.
func (p program) withConfig(c image.Config) program {
	given := map[string]bool{}
	for _, kv := range p.Env {
		name, _, _ := strings.Cut(kv, "=")
		given[name] = true
	}
	for _, kv := range c.Env {
		if name, _, _ := strings.Cut(kv, "="); !given[name] {
			p.Env = append(p.Env, kv)
		}
	}
	if p.Dir == "" {
		p.Dir = c.WorkingDir
	}
	if p.User == "" {
		p.User = c.User
	}
	return p
}

// graphDriverSource is the source of "run --graphdriver FILE": the layers that docker image inspect told of, or unionfsd
// inspect. The topmost of them is called UpperDir there, and is a lower layer here: to write there would change the image.
func graphDriverSource(file string, argv []string) (source, error) {
	in, err := openInput(file)
	if err != nil {
		return source{}, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, 16<<20))
	if err != nil {
		return source{}, err
	}
	var images []inspected
	if err := json.Unmarshal(text, &images); err != nil {
		var one inspected
		if json.Unmarshal(text, &one) != nil {
			return source{}, fmt.Errorf("%s is not what docker image inspect prints: %w", file, err)
		}
		images = []inspected{one}
	}
	if len(images) != 1 {
		return source{}, fmt.Errorf("%s tells of %d images: pass one", file, len(images))
	}
	img := images[0]
	data := img.GraphDriver.Data
	if data.UpperDir == "" {
		return source{}, fmt.Errorf("%s has no GraphDriver data: Docker with containerd's image store has none; use docker save IMAGE | unionfsd load", file)
	}
	s := source{name: img.ID, config: img.Config, argv: argv}
	if len(img.RepoTags) > 0 {
		s.name = img.RepoTags[0]
	}
	s.spec.Lower = []string{data.UpperDir}
	if data.LowerDir != "" {
		s.spec.Lower = append(s.spec.Lower, strings.Split(data.LowerDir, ":")...)
	}
	for _, dir := range s.spec.Lower {
		if _, err := os.Stat(dir); err != nil {
			return source{}, fmt.Errorf("layer %q: %w; the layers must be on this machine, and readable", dir, bare(err))
		}
	}
	return s, nil
}
