package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/fs/diff"
	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
)

// change is what "diff --json" tells of one.
type change struct {
	Kind string     `json:"kind"` // A, C or D
	Path state.Text `json:"path"`
}

func (a *app) diffCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "diff [--json] MOUNTPOINT|CONTAINER",
		GroupID: groupUnions,
		Short:   "show what was changed in a union",
		Long: `Show what the upper layer of a union changes: A for what was added, C for changed, D for deleted, sorted by path. It
reads the upper layers only, so it takes as long as there are changes, however large the union is. A container need
not run; its changes are those in all unions that it has.`,
		Example: `  unionfsd diff merged
  unionfsd diff web
  unionfsd diff --json web | jq -r '.[] | select(.kind == "D").path'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWith(containerNames, mountPoints),
		RunE: func(_ *cobra.Command, args []string) error {
			if a.isContainer(args[0]) { // what it wrote may be for its root only
				if done, err := a.asRoot(); done {
					return err
				}
			}
			changes, err := a.diff(args[0])
			if err != nil {
				return fmt.Errorf("diff %s: %w", args[0], err)
			}
			if asJSON {
				return a.printJSON(changes)
			}
			for _, c := range changes {
				if _, err := fmt.Fprintf(a.stdout, "%s %s\n", c.Kind, oneLine(string(c.Path))); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

var errReadOnly = errors.New("the union is read-only: it has no upper layer, so nothing can have changed")

func (a *app) isContainer(name string) bool {
	root, err := a.state()
	if err != nil {
		return false
	}
	_, err = root.Container(name)
	return err == nil
}

func (a *app) diff(arg string) ([]change, error) {
	spec, err := a.specNamed(arg)
	if err != nil {
		return nil, err
	}
	if spec.Upper == "" {
		return nil, errReadOnly
	}
	changes, err := changesOf(spec, "")
	if err != nil {
		return nil, err
	}
	branches, err := a.branches(arg)
	if err != nil {
		return nil, err
	}
	for at, spec := range branches {
		more, err := changesOf(spec, at)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		for dir := at; dir != "/" && len(more) > 0; dir = path.Dir(dir) { // as what is in it has changed
			told := func(c change) bool { return string(c.Path) == dir }
			if !slices.ContainsFunc(changes, told) {
				changes = append(changes, change{string(diff.Changed), state.Text(dir)})
			}
		}
		changes = append(changes, more...)
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.Path, b.Path) })
	return changes, nil
}

// untouched reports whether the lower layer of a branch is gone, since it was unmounted, and nothing was changed in it.
func untouched(spec layer.Spec) bool {
	if _, err := os.Stat(spec.Lower[0]); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	left, err := os.ReadDir(spec.Upper)
	return err == nil && len(left) == 0
}

// changesOf returns the changes of the union of spec, which is mounted at.
func changesOf(spec layer.Spec, at string) ([]change, error) {
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		return nil, err
	}
	defer stack.Close()
	list, err := diff.Changes(stack)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(list))
	for i, c := range list {
		changes[i] = change{string(c.Kind), state.Text(at + c.Path)}
	}
	return changes, nil
}

// branches returns the unions of a container besides the one of its root, by where they are; none if arg names no container.
func (a *app) branches(arg string) (map[string]layer.Spec, error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	c, err := root.Container(arg)
	if errors.Is(err, state.ErrNoContainer) {
		return nil, nil
	}
	specs := map[string]layer.Spec{}
	for _, b := range c.Branches {
		spec, _, err := layer.ParseOptions(string(b.Spec))
		if err != nil {
			return nil, err
		}
		if !untouched(spec) {
			specs[string(b.Path)] = spec
		}
	}
	return specs, err
}

// specNamed returns the layers of the container or of the mounted union that arg names.
func (a *app) specNamed(arg string) (layer.Spec, error) {
	root, err := a.state()
	if err != nil {
		return layer.Spec{}, err
	}
	u, mounted, err := findUnion(root, arg)
	if err != nil {
		return layer.Spec{}, err
	}
	c, err := root.Container(arg)
	switch {
	case err == nil && mounted:
		return layer.Spec{}, fmt.Errorf("both a container and a mount point; write ./%s for the mount point", arg)
	case err == nil:
		if err := lost(c); err != nil {
			return layer.Spec{}, err
		}
		spec, _, err := layer.ParseOptions(string(c.Spec))
		return spec, err
	case !errors.Is(err, state.ErrNoContainer):
		return layer.Spec{}, err
	case !mounted && strings.Contains(arg, "/"):
		return layer.Spec{}, notUnion(arg)
	case !mounted:
		return layer.Spec{}, errors.New("neither a container nor a mounted union; see unionfsd ps and unionfsd mounts")
	case u.Spec == "":
		return layer.Spec{}, errors.New("its layers are not known: it was mounted with another state root; pass that as --root")
	}
	return specOf(u)
}
