package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image"
	"github.com/unionfsd/unionfsd/ns"
)

// exitSelf is what run exits with where it fails itself; 1 and 2 are the program's to use.
const exitSelf = ns.ExitFailed

// runFlags are what the run command is told.
type runFlags struct {
	rootfs      string
	lower       []string
	graphDriver string
	entrypoint  string
	dockerRoot  string
	upper, work string
	tmpUpper    string
	backend     string
	ioUring     string
	name        string
	remove      bool
	detach      bool
	program     programFlags
	container   containerFlags
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:     "run [FLAGS] IMAGE [COMMAND [ARG...]] | run [FLAGS] --rootfs DIR|-l LOWER... [--] COMMAND [ARG...]",
		GroupID: groupContainers,
		Short:   "run a program in a container on top of layers",
		Long: `Run COMMAND in namespaces of its own, with the layers of IMAGE, with DIR, or with the union of the LOWER layers as its
root file system. The layers are never written: what the program changes goes to an upper layer under the state root, where
unionfsd diff finds it afterwards, and unionfsd apply makes it the change of DIR. With --rm it is removed when the program
ends, and with --tmp-upper it never is on disk.

IMAGE says what is run, as who and where, as far as flags and COMMAND do not. docker:NAME is an image of Docker's overlay2
store, whose layers are used where they are, without Docker. What IMAGE says are volumes are directories of the container
beside its layers, unless -v mounts something there: no diff or commit has what is written to them.

With --rootfs / the other file systems of the host are there as well, such as a /home or /boot of its own, each under an
upper layer of its own; those that are read-only are shown as they are, and files that are mounted by themselves are copied.
Unions that are mounted on the host are not among them.

The program has the privileges that Docker gives: 14 capabilities, a filter of system calls, /proc and /sys without what
tells of the host or changes it; and no set-uid program gives it more. The network is the host's, and so are the ids if root
runs it: with --userns auto it has ids of its own instead, as which the layers are shown, and its root is nobody on the host.

In the foreground its input and output are those of this command; with -t they are a terminal of its own, which this one
is connected to. With -d it runs on behind, its output goes to a log (unionfsd logs), and its name is printed.

Exits with the program's own code, with 128+N if signal N killed it, 126 if it cannot be executed, 127 if there is no
such program, and 125 if something else failed.`,
		Example: `  unionfsd run --rm -t --rootfs / bash                     # a throw-away copy of this system
  unionfsd run --rm -t nginx bash                          # an image: see unionfsd pull and load
  unionfsd run --name try --rootfs / -- make install       # then: unionfsd diff try, and unionfsd apply try or rm try
  unionfsd run -d --name web -l app -l base -- /bin/server -p 80
  unionfsd run --rm --rootfs / --network none -v .:/src:ro -w /src make test
  unionfsd diff web                                        # what it changed; then: unionfsd rm -f web`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.graphDriver != "" {
				return nil // the image says what to run
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if done, err := a.asRoot(); done {
				return err
			}
			held, err := f.hold(a)
			if err != nil {
				return &exitError{exitSelf, fmt.Errorf("run: %w", err)}
			}
			defer held.Close()
			l, err := a.runLaunch(f, args)
			if err != nil {
				return &exitError{exitSelf, fmt.Errorf("run %s: %w", strings.Join(args[:min(1, len(args))], ""), err)}
			}
			return a.launch(cmd.Context(), l, held)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.SetInterspersed(false) // what follows COMMAND is the program's
	flags.StringVar(&f.rootfs, "rootfs", "", "`DIR` that becomes the only lower layer")
	flags.StringArrayVarP(&f.lower, "lower", "l", nil, "lower layer `DIR`; repeat for more, the first is the topmost")
	flags.StringVar(&f.graphDriver, "graphdriver", "", "layers of the image that `FILE`, or - for standard input, tells of: what docker image inspect prints")
	flags.StringVar(&f.dockerRoot, "docker-root", image.DockerRoot, "`DIR` of Docker's data, for images named docker:NAME")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "run `PROGRAM` instead of the image's entry point")
	flags.StringVar(&f.upper, "upper", "", "upper layer `DIR` (default: one under the state root)")
	flags.StringVar(&f.tmpUpper, "tmp-upper", "", "upper layer in memory, gone when the program ends; at most `SIZE` of it")
	flags.Lookup("tmp-upper").NoOptDefVal = "50%" // what a tmpfs takes if nothing is said
	flags.StringVar(&f.work, "work", "", "work `DIR`, empty and on the file system of the upper layer")
	backendFlag(flags, &f.backend)
	ioUringFlag(flags, &f.ioUring)
	flags.StringVar(&f.name, "name", "", "`NAME` of the container and its host name (default: made up)")
	flags.BoolVar(&f.remove, "rm", false, "remove the container when the program ends")
	flags.BoolVarP(&f.detach, "detach", "d", false, "run it in the background, and print its name")
	f.program.add(flags)
	f.container.add(flags)
	return cmd
}

// runLaunch turns flags into a container.
func (a *app) runLaunch(f runFlags, argv []string) (launch, error) {
	from, err := a.source(f, argv)
	if err != nil {
		return launch{}, err
	}
	root, err := a.state()
	if err != nil {
		return launch{}, err
	}
	l := launch{
		StateRoot: root.Dir(),
		Name:      f.name,
		Remove:    f.remove,
		Detached:  f.detach,
		Verbose:   a.verbose,
		Spec:      from.spec,
		Backend:   f.backend,
		Rootfs:    from.name,
		Image:     from.image,
	}
	if l.TmpUpper, err = f.memoryUpper(); err != nil {
		return launch{}, err
	}
	if f.ioUring != "" {
		said, _, err := layer.ParseOptions("io_uring=" + f.ioUring)
		if err != nil {
			return launch{}, err
		}
		l.Spec.Options.FUSE.IOUring = said.Options.FUSE.IOUring
	}
	if l.Program, err = f.program.program(from.argv); err != nil {
		return launch{}, err
	}
	l.Program = l.Program.withConfig(from.config)
	if from.config.StopSignal != "" { // which a flag replaces
		s, err := parseSignal(from.config.StopSignal)
		if err != nil {
			return launch{}, fmt.Errorf("stop signal of the image: %w", err)
		}
		l.StopSignal = int(s)
	}
	if err := f.container.apply(&l); err != nil {
		return launch{}, err
	}
	l.Volumes, err = imageVolumes(from.config, l.Mounts)
	return l, err
}

// launch runs a container, in this process or in the background. It closes held when the container is known to use its
// layers.
func (a *app) launch(ctx context.Context, l launch, held io.Closer) error {
	named := func(code int, err error) error {
		if err != nil {
			err = fmt.Errorf("run %s: %w", l.Program.Argv[0], err)
		}
		if code != 0 {
			return &exitError{code: code, err: err}
		}
		return err
	}
	if l.Detached {
		name, code, err := l.detach()
		if err == nil {
			fmt.Fprintln(a.stdout, name)
		}
		return named(code, err)
	}
	if l.Program.Terminal {
		if err := needTerminal(); err != nil {
			return named(exitSelf, err)
		}
	}
	return named(a.supervise(ctx, l, func(string) error { return held.Close() }))
}

// spec is the union of the layers that the flags name; without an upper layer it gets one later.
func (f runFlags) spec() (layer.Spec, error) {
	spec := layer.Spec{Lower: f.lower, Upper: f.upper, Work: f.work}
	switch {
	case f.rootfs != "" && len(f.lower) > 0:
		return spec, errors.New("both --rootfs and -l; drop one")
	case f.rootfs != "":
		spec.Lower = []string{f.rootfs}
	case len(f.lower) == 0:
		return spec, errors.New("no root file system; pass --rootfs DIR, or -l DIR for each layer")
	}
	if (f.upper == "") != (f.work == "") {
		return spec, errors.New("--upper and --work go together; pass both, or neither")
	}
	if err := spec.Validate(); err != nil {
		return spec, err
	}
	return absolute(spec)
}

// programFlags say how a program is run, by run and by exec.
type programFlags struct {
	terminal, interactive bool
	env, envFile          []string
	dir, user             string
}

func (f *programFlags) add(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.terminal, "tty", "t", false, "give it a terminal of its own, connected to this one")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "keep standard input open, which it always is in the foreground")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "set the variable `NAME=VALUE`; NAME alone takes the value from here")
	flags.StringArrayVar(&f.envFile, "env-file", nil, "set the variables in `FILE`, one a line")
	flags.StringVarP(&f.dir, "workdir", "w", "", "working `DIR` in the container (default /)")
	flags.StringVarP(&f.user, "user", "u", "", "run as `USER[:GROUP]`, names of the container or numbers (default root)")
}

func (f *programFlags) program(argv []string) (program, error) {
	env, err := environment(f.env, f.envFile)
	return program{Argv: argv, Env: env, Dir: f.dir, User: f.user, Terminal: f.terminal}, err
}

// absPath makes a path of the host independent of the working directory.
func absPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(abs); err != nil {
		return "", fmt.Errorf("%q: %w; create it or correct the path", path, bare(err))
	}
	return abs, nil
}

// bare drops the path from an error that is told with a better one.
func bare(err error) error {
	if perr, ok := errors.AsType[*os.PathError](err); ok {
		return perr.Err
	}
	return err
}
