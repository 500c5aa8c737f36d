package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/fs/union"
)

// backends are the ways to serve a union, by the name that --backend takes.
var backends = map[string]mount.Backend{
	"fuse":   union.Backend{},
	"kernel": overlayfs.Backend{},
}

func backendFlag(flags *pflag.FlagSet, name *string) {
	flags.StringVarP(name, "backend", "b", "fuse", "`WHO` serves the union: fuse, kernel, or auto: the kernel if it can")
}

// ioUringFlag stands for the option io_uring=.
func ioUringFlag(flags *pflag.FlagSet, whether *string) {
	flags.StringVar(whether, "io-uring", "", "`WHETHER` requests come over io_uring: auto, where the kernel offers it; on, or not at all; off")
}

// chooseBackend returns the backend called name. For auto that is the kernel's overlayfs if it can do all that spec
// asks for, else FUSE.
func (a *app) chooseBackend(ctx context.Context, name string, spec layer.Spec) (mount.Backend, error) {
	if name != "auto" {
		if b, ok := backends[name]; ok {
			return b, nil
		}
		return nil, usagef("unknown backend %q; it is fuse, kernel or auto", name)
	}
	err := backends["kernel"].Supports(ctx, spec)
	switch {
	case err == nil:
		a.verbosef("backend kernel")
		return backends["kernel"], nil
	case errors.Is(err, errors.ErrUnsupported):
		a.verbosef("backend fuse, since the kernel cannot: %v", err)
	default:
		a.verbosef("backend fuse, since it cannot be told whether the kernel can: %v", err)
	}
	return backends["fuse"], nil
}

func (a *app) verbosef(format string, args ...any) {
	if a.verbose {
		a.note(format, args...)
	}
}
