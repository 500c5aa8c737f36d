package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// layerFlags are how commands take layers.
type layerFlags struct {
	lower       []string
	upper, work string
	options     []string
	image       string
}

func (a *app) mountCommand() *cobra.Command {
	var layers layerFlags
	var backend string
	var passthrough, ioUring string
	var foreground bool
	var measured measuringFlags
	cmd := &cobra.Command{
		Use:     "mount [-b BACKEND] [-l LOWER]...|--image IMAGE [-u UPPER -w WORK] [-o OPTIONS] [-f] MOUNTPOINT",
		GroupID: groupUnions,
		Short:   "show layers as one directory tree",
		Long: `Mount a union of layers on MOUNTPOINT: read-only lower layers, the first -l topmost, under one writable upper
layer. Without an upper layer the union is read-only. Returns when the union is live; what serves it goes on in the
background until it is unmounted.

Options are those of overlayfs and of mount(8): ro, nosuid, nodev, noexec, noatime, userxattr, volatile, redirect_dir=,
metacopy=, index=, nfs_export=, xino=, fsname=NAME, subtype=NAME; lowerdir=, upperdir= and workdir= stand for -l, -u and -w;
datadir+=DIR is a data-only layer: it shows no names, but has the data of files of lower layers that tell where;
lower=immutable is a promise that nobody changes the lower layers while they are mounted, which spares watching them.
With the fuse backend also those of fuse-overlayfs: uidmapping=, gidmapping=, squash_to_root, squash_to_uid=, squash_to_gid=,
xattr_permissions=, noacl, static_nlink, fsync=, timeout=; aufs_marks=on for layers with whiteouts named .wh.NAME; and
passthrough=auto, all or off, for what files the kernel reads and writes without the server. With "all" these are files
of lower layers too: who has one open does not see what others then write to it. The data of a large file are copied up
in the background after its first write (lazy=on), before it (off), or only as they are needed (keep). Requests come
over io_uring where the kernel offers it, which "unionfsd doctor" tells; io_uring=on insists, io_uring=off does without.`,
		Example: `  unionfsd mount -l base merged                               # read-only
  unionfsd mount -l app -l base -u upper -w work merged       # app over base, changes go to upper
  unionfsd mount -b kernel -l base -u upper -w work merged    # the same, served by the kernel
  unionfsd mount -o lowerdir=app:base,nosuid merged           # as for mount(8)
  unionfsd mount -f -l base merged                            # stays until ^C
  unionfsd mount --passthrough=all -l base -u upper -w work merged
  unionfsd mount --metrics-listen :9737 -l base merged        # for Prometheus on this host`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if passthrough != "" {
				layers.options = append(layers.options, "passthrough="+passthrough)
			}
			if ioUring != "" {
				layers.options = append(layers.options, "io_uring="+ioUring)
			}
			err := a.mount(cmd.Context(), layers, backend, args[0], measured, foreground)
			if err != nil {
				return fmt.Errorf("mount %s: %w", args[0], err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	backendFlag(flags, &backend)
	flags.StringArrayVarP(&layers.lower, "lower", "l", nil, "lower layer `DIR`; repeat for more, the first is the topmost")
	flags.StringVar(&layers.image, "image", "", "the layers of `IMAGE` are the lower layers")
	flags.StringVarP(&layers.upper, "upper", "u", "", "writable layer `DIR`")
	flags.StringVarP(&layers.work, "work", "w", "", "empty `DIR` on the file system of the upper layer")
	flags.StringArrayVarP(&layers.options, "options", "o", nil, "mount `OPTIONS`, separated by commas")
	flags.StringVar(&passthrough, "passthrough", "", "`FILES` that the kernel reads and writes without the server: auto, all or off")
	ioUringFlag(flags, &ioUring)
	flags.BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground; unmount on SIGINT or SIGTERM")
	measured.add(flags)
	return cmd
}

func (a *app) mount(ctx context.Context, layers layerFlags, backend, target string, measured measuringFlags, foreground bool) error {
	if layers.image != "" {
		held, err := a.holdImages()
		if err != nil {
			return err
		}
		defer held.Close()
	}
	spec, err := a.layersSpec(layers)
	if err != nil {
		return err
	}
	measuring, err := measured.measuring()
	if err != nil {
		return err
	}
	root, err := a.state()
	if err != nil {
		return err
	}
	return a.start(ctx, backend, job{Spec: spec, Target: target, StateRoot: root.Dir(), MustRecord: true, Measuring: measuring}, foreground)
}

// layersSpec is what flags and -o say of the layers, those of an image included.
func (a *app) layersSpec(layers layerFlags) (layer.Spec, error) {
	if layers.image == "" {
		return layers.spec()
	}
	if len(layers.lower) > 0 {
		return layer.Spec{}, usagef("both --image and -l; drop one")
	}
	img, err := a.image(layers.image)
	if err != nil {
		return layer.Spec{}, err
	}
	image, err := imageSpec(img)
	if err != nil {
		return layer.Spec{}, err
	}
	layers.lower = image.Lower
	spec, err := layers.spec()
	spec.Options.UserXattr = spec.Options.UserXattr || image.Options.UserXattr
	return spec, err
}

// spec puts together what flags and -o say of the layers.
func (l layerFlags) spec() (layer.Spec, error) {
	spec, unknown, err := layer.ParseOptions(strings.Join(l.options, ","))
	if err != nil {
		return spec, usagef("%w", err)
	}
	if len(unknown) > 0 {
		return spec, usagef("unknown option %q; see unionfsd mount --help", strings.Join(unknown, ","))
	}
	for _, f := range []struct {
		flag, option string
		given        string
		field        *string
	}{
		{"-u", "upperdir=", l.upper, &spec.Upper},
		{"-w", "workdir=", l.work, &spec.Work},
	} {
		if f.given == "" {
			continue
		}
		if *f.field != "" {
			return spec, usagef("both %s and -o %s; drop one", f.flag, f.option)
		}
		*f.field = f.given
	}
	if len(l.lower) > 0 {
		if len(spec.Lower) > 0 {
			return spec, usagef("both -l and -o lowerdir=; drop one")
		}
		spec.Lower = l.lower
	}
	return spec, checkSpec(spec)
}

// checkSpec is [layer.Spec.Validate] with the words of the command line.
func checkSpec(spec layer.Spec) error {
	switch {
	case len(spec.Lower) == 0:
		return usagef("no lower layer; pass -l DIR")
	case spec.Upper != "" && spec.Work == "":
		return usagef("an upper layer needs a work directory; pass --work DIR, an empty directory on the file system of %s", shell(spec.Upper))
	case spec.Work != "" && spec.Upper == "":
		return usagef("a work directory without an upper layer; pass --upper DIR, or drop --work")
	}
	if err := spec.Validate(); err != nil {
		return usagef("%w", err)
	}
	return nil
}

// start checks what can be checked before anything is opened, and mounts: in this process if foreground, else in a
// daemon that it leaves behind.
func (a *app) start(ctx context.Context, backend string, j job, foreground bool) error {
	root, err := a.state()
	if err != nil {
		return err
	}
	if j.Spec, err = absolute(j.Spec); err != nil {
		return err
	}
	if j.Target, err = mountTarget(root, j.Target); err != nil {
		return err
	}
	b, err := a.chooseBackend(ctx, backend, j.Spec)
	if err != nil {
		return err
	}
	j.Backend, j.Stay = b.Name(), foreground
	if err := j.canListen(); err != nil {
		return err
	}
	if foreground {
		return j.serve(ctx, foregroundSignals(), func(warning error) error {
			if warning != nil {
				a.complain(warning)
			}
			return nil
		})
	}
	warning, err := j.spawn()
	if warning != "" {
		a.complain(errors.New(warning))
	}
	return err
}
