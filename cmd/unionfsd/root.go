package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unionfsd/unionfsd/internal/state"
)

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	rootDir        string // --root
	verbose        bool   // --verbose
}

// state is the state root of this call.
func (a *app) state() (state.Root, error) {
	if a.rootDir != "" {
		return state.At(a.rootDir)
	}
	dir, err := state.Default()
	if err != nil {
		return state.Root{}, err
	}
	return state.At(dir)
}

// Groups of commands in the help.
const (
	groupUnions     = "unions"
	groupContainers = "containers"
	groupImages     = "images"
	groupMeasure    = "measure"
	groupSystem     = "system"
)

// command is the whole command line.
func (a *app) command() *cobra.Command {
	cobra.EnableCommandSorting = false // the help has the order of use
	root := &cobra.Command{
		Use:   "unionfsd",
		Short: "stack directory trees and run programs in them",
		Long: `unionfsd shows several directory trees as one, over FUSE or with the kernel's overlayfs, and runs programs in
the result.

As a mount helper: unionfsd -o lowerdir=A:B,upperdir=U,workdir=W[,...] [SOURCE] MOUNTPOINT`,
		Example: `  unionfsd mount -l base -u upper -w work merged   # base, writable; changes go to upper
  unionfsd diff merged                             # what changed
  unionfsd run --rm --rootfs / sh                  # a shell in a throw-away copy of this system`,
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usagef("unknown command %q; did you mean %s?", args[0], strings.Join(near, " or "))
			}
			return usagef("unknown command %q; unionfsd --help lists them", args[0])
		},
	}
	root.Version = version() // container engines ask their helper with --version
	root.SetVersionTemplate(versionLine())
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return a.misuse(cmd, err)
	})
	root.PersistentFlags().StringVar(&a.rootDir, "root", "", "`DIR` of the state (default /var/lib/unionfsd, or unionfsd in the XDG data directory)")
	root.PersistentFlags().BoolVar(&a.verbose, "verbose", false, "say what is decided on stderr")
	root.AddGroup(
		&cobra.Group{ID: groupUnions, Title: "Unions:"},
		&cobra.Group{ID: groupContainers, Title: "Containers:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupMeasure, Title: "Measurement:"},
		&cobra.Group{ID: groupSystem, Title: "System:"})
	root.SetHelpCommandGroupID(groupSystem)
	root.SetCompletionCommandGroupID(groupSystem)
	root.AddCommand(a.mountCommand(), a.umountCommand(), a.mountsCommand(), a.switchCommand(), a.diffCommand(), a.applyCommand(),
		a.runCommand(), a.execCommand(), a.psCommand(), a.logsCommand(), a.stopCommand(), a.killCommand(), a.waitCommand(),
		a.pauseCommand(), a.unpauseCommand(), a.rmCommand(),
		a.pullCommand(), a.loadCommand(), a.importCommand(), a.imagesCommand(), a.inspectCommand(), a.historyCommand(),
		a.layersCommand(), a.treeCommand(), a.dfCommand(), a.tagCommand(), a.commitCommand(), a.squashCommand(), a.exportCommand(), a.saveCommand(),
		a.pushCommand(), a.rmiCommand(), a.gcCommand(),
		a.metricsCommand(), a.topCommand(), a.benchCommand(),
		a.doctorCommand(), a.versionCommand())
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	for _, cmd := range root.Commands() {
		cmd.Args = a.checked(cmd.Args)
		cmd.DisableFlagsInUseLine = true
	}
	return root
}

// usageTemplate is cobra's, but that flags are shown without the [=true|false] that pflag gives to every switch.
func usageTemplate(template string) string {
	const values = "[=true|false]"
	cobra.AddTemplateFunc("flagUsages", func(flags *pflag.FlagSet) string {
		return strings.ReplaceAll(flags.FlagUsages(), values, strings.Repeat(" ", len(values)))
	})
	return strings.NewReplacer(
		".LocalFlags.FlagUsages", "flagUsages .LocalFlags",
		".InheritedFlags.FlagUsages", "flagUsages .InheritedFlags").Replace(template)
}

// checked makes a wrong number of arguments a usage error.
func (a *app) checked(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return a.misuse(cmd, err)
		}
		return nil
	}
}

// misuse is a usage error that says where the right usage is to be found.
func (a *app) misuse(cmd *cobra.Command, err error) error {
	code := exitUsage
	if cmd.Name() == "run" || cmd.Name() == "exec" {
		code = exitSelf // 2 could be the program's own
	}
	where := strings.TrimPrefix(cmd.CommandPath()+": ", "unionfsd: ")
	where = strings.TrimPrefix(where, "unionfsd ")
	return &exitError{code, fmt.Errorf("%s%w; see %s --help", where, err, cmd.CommandPath())}
}

func (a *app) execute(args []string) error {
	root := a.command()
	root.SetArgs(args)
	return root.Execute()
}

// printJSON writes v for programs to read.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
