package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unionfsd/unionfsd/fs/apply"
	"github.com/unionfsd/unionfsd/fs/diff"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
	"github.com/unionfsd/unionfsd/internal/sys"
)

func (a *app) applyCommand() *cobra.Command {
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:     "apply [--dry-run] [--yes] CONTAINER|MOUNTPOINT [DIR]",
		GroupID: groupUnions,
		Short:   "make what was changed in a union the changes of a directory",
		Long: `Make the changes that the upper layer of a union has, those that unionfsd diff shows, to DIR: by default to the directory
that is its only lower layer, such as the --rootfs of a container. So a command can be tried on this machine, looked at, and kept.

Shows what it is about to do and asks, unless --yes is given. Each file changes at once and whole, what was deleted
in the union is deleted, and owners, modes, times, attributes and hard links are as in the union. If it fails half
way, do it again. No symbolic link in DIR is followed. The root directory itself, its owner and mode, is left alone.

The container must have ended, and a union that the kernel serves must be unmounted or switched to fuse, if DIR is one of its layers.`,
		Example: `  unionfsd run --name try --rootfs / -- make install
  unionfsd diff try
  unionfsd apply try                  # keep it; or: unionfsd rm try
  unionfsd apply --yes web /srv/copy`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeWith(containerNames, mountPoints),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.isContainer(args[0]) { // what it wrote may be for its root only
				if done, err := a.asRoot(); done {
					return err
				}
			}
			dir := ""
			if len(args) == 2 {
				dir = args[1]
			}
			if err := a.apply(cmd.Context(), args[0], dir, dryRun, yes); err != nil {
				return fmt.Errorf("apply %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "print what would change, and change nothing")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// application is one union that is applied, and where to.
type application struct {
	stack   *layer.Stack
	at      string // of the union, in the container; empty for the root
	target  string
	changes []diff.Change
}

func (a *app) apply(ctx context.Context, arg, dir string, dryRun, yes bool) error {
	list, err := a.applications(arg, dir)
	defer func() {
		for _, one := range list {
			one.stack.Close()
		}
	}()
	if err != nil {
		return err
	}
	var lines []string
	counts := map[diff.Kind]int{}
	for _, one := range list {
		for _, c := range one.changes {
			counts[c.Kind]++
			lines = append(lines, fmt.Sprintf("%s %s", c.Kind, oneLine(one.at+c.Path)))
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(a[2:], b[2:]) })
	if dryRun {
		for _, line := range lines {
			fmt.Fprintln(a.stdout, line)
		}
		return nil
	}
	target := list[0].target
	if len(lines) == 0 {
		a.note("%s: nothing has changed", arg)
		return nil
	}
	summary := fmt.Sprintf("%d added, %d changed, %d deleted", counts[diff.Added], counts[diff.Changed], counts[diff.Deleted])
	if !yes {
		if agreed, err := a.ask(lines, fmt.Sprintf("Make these changes to %s (%s)?", shell(target), summary)); err != nil || !agreed {
			return err
		}
	}
	done := 0
	for _, one := range list {
		if err := one.make(ctx, func(diff.Change) { done++ }); err != nil {
			return fmt.Errorf("after %d of %d changes: %w; what was done can be done again", done, len(lines), err)
		}
	}
	a.note("%s: %s", target, summary)
	return nil
}

// make makes the changes. A union that is mounted in the container goes to the same place in the target, which no symbolic
// link leads out of.
func (one application) make(ctx context.Context, done func(diff.Change)) error {
	target := one.target
	if one.at != "" && len(one.changes) > 0 {
		root, err := os.OpenRoot(target)
		if err != nil {
			return err
		}
		defer root.Close()
		at := strings.TrimPrefix(one.at, "/")
		if err := root.MkdirAll(at, 0o755); err != nil {
			return err
		}
		dir, err := root.Open(at)
		if err != nil {
			return err
		}
		defer dir.Close()
		target = sys.ProcPath(int(dir.Fd()), "")
	}
	return apply.Changes(ctx, one.stack, one.changes, target, done)
}

// ask shows lines and asks a question, at a terminal.
func (a *app) ask(lines []string, question string) (bool, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false, usagef("nobody to ask: standard input is no terminal; pass --yes, or --dry-run to look")
	}
	const most = 40
	for _, line := range lines[:min(most, len(lines))] {
		fmt.Fprintln(a.stderr, line)
	}
	if more := len(lines) - most; more > 0 {
		fmt.Fprintf(a.stderr, "... and %d more; --dry-run shows all\n", more)
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// applications opens what is to be applied: the union of the root first. The caller closes the stacks, also after an error.
func (a *app) applications(arg, dir string) ([]application, error) {
	spec, err := a.specNamed(arg)
	if err != nil {
		return nil, err
	}
	if spec.Upper == "" {
		return nil, errReadOnly
	}
	target, err := a.applyTarget(arg, dir, spec)
	if err != nil {
		return nil, err
	}
	branches, err := a.branches(arg)
	if err != nil {
		return nil, err
	}
	specs := map[string]layer.Spec{"": spec}
	maps.Copy(specs, branches)
	var list []application
	for _, at := range slices.Sorted(maps.Keys(specs)) {
		one := application{at: at, target: target}
		if one.stack, err = layer.OpenReadOnly(specs[at]); err != nil {
			return list, err
		}
		list = append(list, one)
		if one.changes, err = diff.Every(one.stack); err != nil {
			return list, err
		}
		list[len(list)-1] = one
	}
	return list, nil
}

// applyTarget is where to apply a union, if that may be.
func (a *app) applyTarget(arg, dir string, spec layer.Spec) (string, error) {
	root, err := a.state()
	if err != nil {
		return "", err
	}
	c, err := root.Container(arg)
	container := err == nil
	if container && c.Running {
		return "", fmt.Errorf("it is %s; stop it first: unionfsd stop %s", c.Status(), arg)
	}
	if dir == "" {
		if dir, err = onlyLower(root, c, spec); err != nil {
			return "", err
		}
	}
	if dir, err = absPath(dir); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	within := func(layers ...string) bool {
		return slices.ContainsFunc(layers, func(l string) bool { return l != "" && (dir == l || strings.HasPrefix(dir, l+"/")) })
	}
	if within(spec.Upper, spec.Work) {
		return "", fmt.Errorf("%q is in the upper layer, whose changes are to be applied; name another directory", dir)
	}
	if !container && within(spec.Lower...) {
		if u, ok, err := findUnion(root, arg); err != nil || ok && u.Backend == "kernel" {
			return "", errors.Join(err, fmt.Errorf("the kernel serves it, and its layers must not change meanwhile: unionfsd switch %s fuse", shell(arg)))
		}
	}
	return dir, nil
}

// onlyLower is the directory that a union is made of, if it is made of one, and not of an image.
func onlyLower(root state.Root, c state.Container, spec layer.Spec) (string, error) {
	if c.Image != "" || strings.HasPrefix(string(c.Rootfs), "docker:") {
		return "", errors.New("it was started from an image, whose layers do not change; name a DIR, or see unionfsd commit")
	}
	ours := filepath.Join(root.Dir(), "containers") + "/" // a layer of mount points
	lower := slices.DeleteFunc(slices.Clone(spec.Lower), func(dir string) bool { return strings.HasPrefix(dir, ours) })
	if len(lower) == 0 && c.Rootfs == "/" { // put together for an ordinary user
		return "/", nil
	}
	if len(lower) != 1 {
		return "", fmt.Errorf("it has %d lower layers; name the DIR to apply its changes to", len(lower))
	}
	return lower[0], nil
}
