package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/mount"
	"github.com/unionfsd/unionfsd/fs/overlayfs"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/ns"
)

// exitSelf is what run exits with where it fails itself; 1 and 2 are the program's to use.
const exitSelf = ns.ExitFailed

// runFlags are what the run command is told.
type runFlags struct {
	rootfs  string
	lower   []string
	backend string
	name    string
	remove  bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:     "run [-b BACKEND] --rootfs DIR | -l LOWER... [--name NAME] [--rm] [--] COMMAND [ARG...]",
		GroupID: groupContainers,
		Short:   "run a program in a container on top of layers",
		Long: `Run COMMAND with DIR, or the union of the LOWER layers, as its root file system, in namespaces of its own. The
layers are never written: what the program changes goes to an upper layer under the state root, where unionfsd diff
finds it afterwards. With --rm it is removed when the program ends.

Exits with the program's own code, with 128+N if signal N killed it, 126 if it cannot be executed, 127 if there is no
such program, and 125 if something else failed.`,
		Example: `  unionfsd run --rm --rootfs / sh                          # a throw-away copy of this system
  unionfsd run --name web -l app -l base -- /bin/server -p 80
  unionfsd diff web                                        # what it changed; then: unionfsd rm web`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := a.run(cmd.Context(), f, args)
			if err != nil {
				return &exitError{code, fmt.Errorf("run %s: %w", args[0], err)}
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.SetInterspersed(false) // what follows COMMAND is the program's
	flags.StringVar(&f.rootfs, "rootfs", "", "`DIR` that becomes the only lower layer")
	flags.StringArrayVarP(&f.lower, "lower", "l", nil, "lower layer `DIR`; repeat for more, the first is the topmost")
	backendFlag(flags, &f.backend)
	flags.StringVar(&f.name, "name", "", "`NAME` of the container and its host name (default: made up)")
	flags.BoolVar(&f.remove, "rm", false, "remove the container when the program ends")
	return cmd
}

// run runs a program in a new container. The code is what to exit with, also with an error.
func (a *app) run(ctx context.Context, f runFlags, argv []string) (code int, err error) {
	began := time.Now()
	spec, err := f.spec()
	if err != nil {
		return exitSelf, err
	}
	root, err := a.state()
	if err != nil {
		return exitSelf, err
	}
	home, err := root.NewContainer(f.name)
	if err != nil {
		return exitSelf, err
	}
	keep := false // what never ran leaves nothing
	defer func() {
		end := home.Remove
		if keep && !f.remove {
			end = home.Close
		}
		if eerr := end(); err == nil && eerr != nil {
			code, err = exitSelf, eerr
		}
	}()
	spec.Upper, spec.Work = home.Upper(), home.Work()
	if err := likeRoot(spec.Upper, spec.Lower[0]); err != nil {
		return exitSelf, err
	}
	mask, err := stateInside(root, spec.Lower)
	if err != nil {
		return exitSelf, err
	}
	b, err := a.chooseBackend(ctx, f.backend, spec)
	if err != nil {
		return exitSelf, err
	}
	if len(mask) > 0 {
		b = allowInside(b)
	}
	raiseDescriptors()
	unix.Umask(0) // the union is served by this process, and modes are what requests say
	view, err := b.Open(ctx, spec)
	if err != nil {
		return exitSelf, err
	}
	defer view.Close()
	c := state.Container{
		Name:       home.Name(),
		Backend:    b.Name(),
		Spec:       state.Text(spec.String()),
		Rootfs:     state.Text(spec.Lower[0]),
		Command:    state.Texts(argv),
		Created:    time.Now(),
		Supervisor: os.Getpid(),
	}
	started := func(pid int) error {
		keep = true
		a.counted(root.CountStart(time.Since(began)))
		c.PID = pid
		return home.Save(c)
	}
	code, err = launch(view, c.Name, argv, mask, started)
	if keep {
		a.counted(root.CountExit(code))
	}
	if err != nil {
		return code, err
	}
	c.ExitCode = &code
	return code, home.Save(c)
}

// spec is the union of the layers that the flags name, without an upper layer yet.
func (f runFlags) spec() (layer.Spec, error) {
	spec := layer.Spec{Lower: f.lower}
	switch {
	case f.rootfs != "" && len(f.lower) > 0:
		return spec, errors.New("both --rootfs and -l; drop one")
	case f.rootfs != "":
		spec.Lower = []string{f.rootfs}
	case len(f.lower) == 0:
		return spec, errors.New("no root file system; pass --rootfs DIR, or -l DIR for each layer")
	}
	if err := spec.Validate(); err != nil {
		return spec, err
	}
	return absolute(spec)
}

// launch runs argv in the view and returns its exit code. It calls started when the program runs.
func launch(view mount.View, hostname string, argv, mask []string, started func(pid int) error) (code int, err error) {
	container, err := ns.Start(ns.Config{
		Root:     view.FD(),
		Argv:     argv,
		Env:      ns.DefaultEnv(hostname, os.Getenv("TERM")),
		Hostname: hostname,
		Mask:     mask,
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
	})
	if err != nil {
		if nerr, ok := errors.AsType[*ns.Error](err); ok {
			return nerr.ExitCode(), err
		}
		return exitSelf, err
	}
	stop := container.Forward()
	defer stop()
	lost := make(chan error, 1)
	go func() {
		// A program whose root is dead can do nothing but wait for it.
		if err := view.Wait(); err != nil {
			lost <- err
			container.Signal(syscall.SIGKILL)
		}
	}()
	saved := started(container.Pid())
	if saved != nil {
		container.Signal(syscall.SIGKILL)
	}
	code, err = container.Wait()
	if saved != nil {
		err = saved
	}
	select {
	case err = <-lost:
		err = fmt.Errorf("its root file system was lost: %w", err)
	default:
	}
	if err != nil {
		return exitSelf, err
	}
	return code, nil
}

// likeRoot gives the upper layer, whose root becomes the root directory of the container, owner and mode of the
// root of the topmost lower layer, which it covers. In a user namespace the owner may be nobody that can be named.
func likeRoot(upper, lower string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("lower layer %q: %w; name an existing directory", lower, err)
	}
	err := unix.Chown(upper, int(st.Uid), int(st.Gid))
	if err != nil && err != unix.EINVAL && err != unix.EPERM {
		return fmt.Errorf("owner of upper layer %q: %w", upper, err)
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("mode of upper layer %q: %w", upper, err)
	}
	return nil
}

// stateInside returns where the state root would be seen in a union of the layers lower: where it lies in one of
// them. The upper layers of all containers are in it.
func stateInside(root state.Root, lower []string) ([]string, error) {
	entries, err := mountinfo.Read()
	if err != nil {
		return nil, err
	}
	real, err := realPath(root.Dir())
	if err != nil {
		return nil, err
	}
	var mask []string
	for _, dir := range lower {
		if rel, ok := mountinfo.Inside(entries, real, dir); ok {
			mask = append(mask, rel)
		}
	}
	return mask, nil
}

// allowInside lets the kernel's overlayfs have an upper layer inside a lower one, which is covered in the container.
// The FUSE backend always copes.
func allowInside(b mount.Backend) mount.Backend {
	if o, ok := b.(overlayfs.Backend); ok {
		o.AllowInside = true
		return o
	}
	return b
}
