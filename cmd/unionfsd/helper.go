package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// isHelper reports whether unionfsd was called as mount(8) and container engines call the program of a file system:
//
//	unionfsd -o OPTIONS [SOURCE] MOUNTPOINT      fuse-overlayfs(1)
//	unionfsd SOURCE MOUNTPOINT -o OPTIONS        mount.fuse3(8), for mount -t fuse.unionfsd
//	mount.unionfsd SOURCE MOUNTPOINT ...         mount(8), for mount -t unionfsd
//	fuse-overlayfs ...                           who looks for a program of that name
//
// Where a command has the name of a source, it is the command.
func isHelper(program string, args []string) bool {
	if isMountHelper(program) || program == peerName {
		return true
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--root":
			i++
		case strings.HasPrefix(arg, "--root="), arg == "--verbose":
		case arg == "-f", arg == "-d", strings.HasPrefix(arg, "-o"):
			return true
		case strings.HasPrefix(arg, "-"):
			return false
		default:
			return !isCommand(arg) && hasOptions(args[i:])
		}
	}
	return false
}

// peerName is what container engines look for in PATH: a symbolic link of that name to unionfsd serves them.
const peerName = "fuse-overlayfs"

func isMountHelper(program string) bool { return strings.HasPrefix(program, "mount.") }

func isCommand(word string) bool {
	for _, cmd := range new(app).command().Commands() {
		if cmd.Name() == word || cmd.HasAlias(word) {
			return true
		}
	}
	return word == "help" || word == "completion" || strings.HasPrefix(word, "__complete") // cobra adds them late
}

func hasOptions(args []string) bool {
	for _, arg := range args {
		if strings.HasPrefix(arg, "-o") {
			return true
		}
	}
	return false
}

// helper mounts what the arguments of a mount helper say. Options that mean nothing to us are told and dropped, as
// fuse-overlayfs(1) does: engines pass the same list to every helper.
func (a *app) helper(program string, args []string) error {
	flags := pflag.NewFlagSet("unionfsd", pflag.ContinueOnError)
	flags.Usage = func() {}
	options := flags.StringArrayP("options", "o", nil, "")
	foreground := flags.BoolP("foreground", "f", false, "")
	debug := flags.BoolP("debug", "d", false, "")
	flags.StringVar(&a.rootDir, "root", "", "")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "")
	flags.BoolP("no-mtab", "n", false, "") // mount(8): there has been no mtab to write for long
	flags.BoolP("sloppy", "s", false, "")  // mount(8): unknown options are dropped anyway
	flags.StringP("types", "t", "", "")    // mount(8): we know what we are
	version := flags.BoolP("version", "V", false, "")
	help := flags.BoolP("help", "h", false, "")
	if err := flags.Parse(args); err != nil {
		return usagef("%w; see unionfsd --help", err)
	}
	switch {
	case *version:
		return a.execute([]string{"version"})
	case *help:
		return a.execute([]string{"help"})
	}
	if flags.NArg() < 1 || flags.NArg() > 2 {
		return usagef("%d arguments besides the options; write unionfsd -o OPTIONS [SOURCE] MOUNTPOINT", flags.NArg())
	}
	if isMountHelper(program) && *foreground {
		return nil // mount(8) means: do not mount
	}
	target := flags.Arg(flags.NArg() - 1)
	if strings.HasPrefix(target, "/dev/fd/") {
		return usagef("mount %s: a mount point that was opened by mount.fuse3 is not supported; drop the option drop_privileges", target)
	}
	source := ""
	if flags.NArg() == 2 {
		source = flags.Arg(0)
	}
	if err := a.helperMount(source, target, strings.Join(*options, ","), *foreground || *debug); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

func (a *app) helperMount(source, target, options string, foreground bool) error {
	spec, unknown, err := layer.ParseOptions(options)
	if err != nil {
		return usagef("%w", err)
	}
	if slices.Contains(unknown, "remount") {
		return a.remount(target, spec.Options)
	}
	backend := "fuse"
	for _, option := range unknown {
		if name, ok := strings.CutPrefix(option, "backend="); ok {
			backend = name
		} else {
			a.note("unknown option ignored: %s", option)
		}
	}
	if backend == "fuse" {
		// Container engines unpack layers with these marks where they do not mount the layers themselves.
		if spec, _, err = layer.ParseOptions("aufs_marks=on,lazy=off," + options); err != nil {
			return usagef("%w", err)
		}
	}
	if spec.Options.FsName == "" {
		spec.Options.FsName = source // by it "mount -a" sees that an entry of fstab(5) is mounted
	}
	if err := checkSpec(spec); err != nil {
		return err
	}
	root, err := a.state()
	if err != nil {
		return err
	}
	return a.start(context.Background(), backend, job{Spec: spec, Target: target, StateRoot: root.Dir()}, foreground)
}
