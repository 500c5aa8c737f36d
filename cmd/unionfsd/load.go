package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unionfsd/unionfsd/image"
)

// takeFlags say how images are taken in.
type takeFlags struct {
	options  image.Options
	platform string
	quiet    bool
}

func (f *takeFlags) add(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not tell what becomes of each layer")
	flags.StringVar(&f.platform, "platform", "", "which image of several: `OS/ARCH[/VARIANT]` (default linux/"+runtime.GOARCH+")")
	flags.Int64Var(&f.options.Limits.Bytes, "max-layer-size", 128<<30, "refuse a layer of more than `BYTES`; 0 is no limit")
	flags.Int64Var(&f.options.Limits.Entries, "max-entries", 5_000_000, "refuse a layer of more than `N` files; 0 is no limit")
}

// taken is the options that the flags amount to. Call finish when all is taken in.
func (f *takeFlags) taken(stderr io.Writer) (o image.Options, finish func(), err error) {
	o = f.options
	finish = func() {}
	if f.platform != "" {
		p, err := image.ParsePlatform(f.platform)
		if err != nil {
			return o, finish, usagef("--platform %s: it is OS/ARCH[/VARIANT]", f.platform)
		}
		o.Platform = *p
	}
	if f.quiet {
		return o, finish, nil
	}
	o.Layer = func(id, status string) { fmt.Fprintf(stderr, "%s: %s\n", id, status) } // one write, one line
	if bar := newBar(stderr, progressbar.OptionShowBytes(true)); bar != nil {
		line := o.Layer
		o.Layer = func(id, status string) {
			_ = bar.Clear()
			line(id, status)
		}
		o.Progress = func(done, total int64) {
			bar.ChangeMax64(max(total, 1))
			_ = bar.Set64(done) // only its drawing can fail
		}
		finish = func() { _ = bar.Finish() }
	}
	return o, finish, nil
}

func (a *app) loadCommand() *cobra.Command {
	var f takeFlags
	var input string
	cmd := &cobra.Command{
		Use:     "load [-i FILE|DIR]",
		GroupID: groupImages,
		Short:   "add the images of an archive",
		Long: `Add the images of an archive that docker save, skopeo, podman or unionfsd save has written, from FILE or from standard
input, compressed or not; or those of an OCI image layout in DIR. Their layers are unpacked, once for all images that
have them. What is damaged is refused whole.`,
		Example: `  unionfsd load -i nginx.tar
  docker save nginx | unionfsd load
  unionfsd load -i oci-layout/`,
		Args: cobra.NoArgs,
		RunE: a.onLayers(func(cmd *cobra.Command, _ []string) error {
			o, finish, err := f.taken(a.stderr)
			if err != nil {
				return err
			}
			defer finish()
			names, err := a.load(cmd.Context(), input, o)
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			for _, n := range names {
				fmt.Fprintln(a.stdout, "Loaded image: "+n)
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "-", "`FILE` or DIR to read; - is standard input")
	f.add(cmd.Flags())
	return cmd
}

func (a *app) load(ctx context.Context, input string, o image.Options) ([]string, error) {
	store, err := a.imageStore()
	if err != nil {
		return nil, err
	}
	f, err := openInput(input)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return store.LoadDir(ctx, input, o)
	}
	return store.Load(ctx, f, o)
}

// openInput opens a file, or standard input for "-".
func openInput(name string) (*os.File, error) {
	if name == "-" {
		return os.Stdin, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, bare(err))
	}
	return f, nil
}

func (a *app) importCommand() *cobra.Command {
	var f takeFlags
	var message, change = "", []string(nil)
	cmd := &cobra.Command{
		Use:     "import FILE|DIR|- [NAME]",
		GroupID: groupImages,
		Short:   "make an image of a root file system",
		Long:    "Make an image of one layer of a root file system: a tar archive, compressed or not, or a directory. Prints its id.",
		Example: `  unionfsd import rootfs.tar.gz base:1
  unionfsd import -c 'CMD ["/bin/sh"]' debian-root/ debian:mine`,
		Args: cobra.RangeArgs(1, 2),
		RunE: a.onLayers(func(cmd *cobra.Command, args []string) error {
			o, finish, err := f.taken(a.stderr)
			if err != nil {
				return err
			}
			defer finish()
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			c := image.Change{Comment: message, Created: created(), Compression: image.Gzip, Configure: changes(change)}
			if len(args) == 2 {
				c.Name = args[1]
			}
			in, err := openInput(args[0])
			if err != nil {
				return fmt.Errorf("import: %w", err)
			}
			defer in.Close()
			var img *image.Image
			if st, serr := in.Stat(); serr == nil && st.IsDir() {
				img, err = store.ImportDir(cmd.Context(), args[0], c, o)
			} else {
				img, err = store.Import(cmd.Context(), in, c, o)
			}
			if err != nil {
				return fmt.Errorf("import %s: %w", args[0], err)
			}
			fmt.Fprintln(a.stdout, img.ID)
			return nil
		}),
	}
	cmd.Flags().StringArrayVarP(&change, "change", "c", nil, "apply an `INSTRUCTION` of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR")
	cmd.Flags().StringVarP(&message, "message", "m", "Imported by unionfsd", "`TEXT` for the history")
	f.add(cmd.Flags())
	return cmd
}

// created is the time of what is made now; SOURCE_DATE_EPOCH sets it, for images that can be made again.
func created() time.Time {
	var sec int64
	if _, err := fmt.Sscan(os.Getenv("SOURCE_DATE_EPOCH"), &sec); err == nil {
		return time.Unix(sec, 0).UTC()
	}
	return time.Now().UTC()
}

func (a *app) pullCommand() *cobra.Command {
	var f takeFlags
	cmd := &cobra.Command{
		Use:     "pull NAME[:TAG|@DIGEST]",
		GroupID: groupImages,
		Short:   "get an image from a registry",
		Long: `Get an image from a registry, Docker's by default, with the credentials that docker login or podman login has stored.
Layers that are here already are not fetched, and a download that was interrupted goes on where it ended.`,
		Example: `  unionfsd pull nginx
  unionfsd pull --platform linux/arm64 ghcr.io/org/app:1.2`,
		Args: cobra.ExactArgs(1),
		RunE: a.onLayers(func(cmd *cobra.Command, args []string) error {
			o, finish, err := f.taken(a.stderr)
			if err != nil {
				return err
			}
			defer finish()
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			_, digest, err := store.Pull(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, "Digest: "+digest)
			return nil
		}),
	}
	f.add(cmd.Flags())
	return cmd
}

func (a *app) pushCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "push IMAGE [NAME]",
		GroupID:           groupImages,
		Short:             "copy an image to a registry",
		Example:           `  unionfsd push nginx:mine registry.example.org/nginx:mine`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			img, err := store.Image(args[0])
			if err != nil {
				return fmt.Errorf("push: %w", err)
			}
			digest, err := store.Push(cmd.Context(), img, args[len(args)-1])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, "Digest: "+digest)
			return nil
		},
	}
}

func (a *app) saveCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "save [-o FILE] IMAGE...",
		GroupID: groupImages,
		Short:   "write images to an archive",
		Long: `Write images to an archive that docker load reads and that is an OCI image layout, too. Layers are written as they came,
byte for byte.`,
		Example: `  unionfsd save nginx:mine | docker load
  unionfsd save -o two.tar nginx:mine debian`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			var images []*image.Image
			for _, arg := range args {
				img, err := store.Image(arg)
				if err != nil {
					return fmt.Errorf("save: %w", err)
				}
				if !image.HasPrefix(img.ID, arg) { // as docker save does: the names that were asked for
					img.Names = keepNamed(img.Names, arg)
				}
				images = append(images, img)
			}
			return a.writeOutput("save", output, func(w io.Writer) error { return store.Save(w, images) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`FILE` to write; - is standard output")
	return cmd
}

// keepNamed returns the one of names that arg is, or all of them if it is none.
func keepNamed(names []string, arg string) []string {
	for _, n := range names {
		if short := image.ShortName(n); n == arg || short == arg || strings.TrimSuffix(short, ":latest") == arg {
			return []string{n}
		}
	}
	return names
}

// writeOutput lets write write to a file, which appears when it is whole, or to standard output for "-".
func (a *app) writeOutput(what, output string, write func(io.Writer) error) error {
	if output == "-" {
		if f, ok := a.stdout.(*os.File); ok && isTerminal(f) {
			return usagef("%s: it is an archive, not for a terminal; pass -o FILE", what)
		}
		return write(a.stdout)
	}
	temp := output + ".tmp"
	f, err := os.Create(temp)
	if err != nil {
		return fmt.Errorf("%s: %q: %w", what, output, bare(err))
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, output)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (a *app) exportCommand() *cobra.Command {
	var output, to string
	cmd := &cobra.Command{
		Use:     "export [-o FILE | --to DIR] IMAGE|CONTAINER|MOUNTPOINT",
		GroupID: groupImages,
		Short:   "write a whole root file system to a tar archive or a directory",
		Long: `Write the whole file system of an image, a container or a union to a tar archive, or to the directory DIR, which is made or
empty and has all of it or nothing.`,
		Example: `  unionfsd export nginx | tar -xpC new-root
  unionfsd export --to new-root nginx`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWith(imageNames, containerNames),
		RunE: a.onLayers(func(cmd *cobra.Command, args []string) error {
			write := func(w io.Writer) error { return a.export(cmd.Context(), args[0], w) }
			if to == "" {
				return a.writeOutput("export", output, write)
			}
			if cmd.Flags().Changed("output") {
				return usagef("export: both -o and --to; drop one")
			}
			if err := image.WriteDir(cmd.Context(), to, write); err != nil {
				return fmt.Errorf("export: %w", err)
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`FILE` to write; - is standard output")
	cmd.Flags().StringVar(&to, "to", "", "`DIR` to make")
	return cmd
}

func (a *app) export(ctx context.Context, arg string, w io.Writer) error {
	img, err := a.image(arg)
	if err == nil {
		return img.Export(ctx, w)
	}
	spec, serr := a.specNamed(arg)
	if serr != nil {
		return err
	}
	branches, err := a.branches(arg)
	if err != nil {
		return err
	}
	for _, at := range slices.Sorted(maps.Keys(branches)) {
		a.note("export: %s is left out: it is a file system of its own", shell(at))
	}
	return image.ExportUnion(ctx, spec, w)
}
