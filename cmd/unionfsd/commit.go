package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image"
	"github.com/unionfsd/unionfsd/internal/state"
)

// commitFlags are what the commit command is told.
type commitFlags struct {
	author, message, compression string
	change                       []string
	noPause                      bool
}

func (a *app) commitCommand() *cobra.Command {
	var f commitFlags
	cmd := &cobra.Command{
		Use:     "commit [FLAGS] CONTAINER [NAME]",
		GroupID: groupImages,
		Short:   "make an image of what a container has changed",
		Long: `Make an image of the image that CONTAINER was started from and one more layer: what the container has changed. Its
programs are paused meanwhile. Prints the id of the image. The same changes give the same layer.`,
		Example: `  unionfsd commit web nginx:rm_tar
  unionfsd commit -c 'ENV DEBUG=1' -m 'for tests' web nginx:debug`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeWith(containerNames),
		RunE: a.onLayers(func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			img, err := a.commit(cmd.Context(), f, args[0], name)
			if err != nil {
				return fmt.Errorf("commit %s: %w", args[0], err)
			}
			fmt.Fprintln(a.stdout, img.ID)
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.author, "author", "a", "", "`NAME` for the history")
	flags.StringVarP(&f.message, "message", "m", "", "`TEXT` for the history")
	flags.StringArrayVarP(&f.change, "change", "c", nil, "apply an `INSTRUCTION` of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR")
	flags.StringVar(&f.compression, "compression", "gzip", "`HOW` the layer is compressed: gzip, zstd or none")
	flags.BoolVar(&f.noPause, "no-pause", false, "do not pause the container; files that it writes now may be torn")
	return cmd
}

func (a *app) commit(ctx context.Context, f commitFlags, name, newName string) (img *image.Image, err error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	c, err := root.Container(name)
	if err != nil {
		return nil, err
	}
	if c.Image == "" {
		return nil, fmt.Errorf("it was started from directories; make an image of its files: unionfsd export %s | unionfsd import - NAME", name)
	}
	if err := lost(c); err != nil {
		return nil, err
	}
	store := image.At(root.Dir())
	parent, err := store.Image(c.Image)
	if err != nil {
		return nil, err
	}
	spec, _, err := layer.ParseOptions(string(c.Spec))
	if err != nil {
		return nil, err
	}
	stack, err := layer.OpenReadOnly(spec)
	if err != nil {
		return nil, err
	}
	defer stack.Close()
	if c.Running && !c.Paused && !f.noPause {
		if err := a.askContainer(ctx, name, controlRequest{Freeze: true}); err != nil {
			return nil, err
		}
		defer func() {
			if rerr := a.askContainer(ctx, name, controlRequest{Thaw: true}); err == nil {
				err = rerr
			}
		}()
	}
	return store.Commit(ctx, parent, stack, image.Change{Name: newName, CreatedBy: joined(c.Command), Author: f.author, Comment: f.message,
		Configure: changes(f.change), Compression: image.Compression(f.compression), Created: created()}, image.Options{})
}

func joined(argv []state.Text) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = string(w)
	}
	return strings.Join(words, " ")
}

// changes returns what applies instructions of a Dockerfile to a config.
func changes(list []string) func(*image.Config) error {
	return func(c *image.Config) error {
		for _, text := range list {
			if err := instruct(c, text); err != nil {
				return fmt.Errorf("--change %q: %w", text, err)
			}
		}
		return nil
	}
}

func instruct(c *image.Config, text string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return fmt.Errorf("it has no value")
	}
	key, value, pair := strings.Cut(rest, "=")
	value = strings.Trim(value, `"`)
	switch strings.ToUpper(word) {
	case "CMD":
		c.Cmd = commandWords(rest)
	case "ENTRYPOINT":
		c.Entrypoint = commandWords(rest)
	case "ENV":
		if !pair {
			return fmt.Errorf("write it as ENV NAME=VALUE")
		}
		env := c.Env[:0:0]
		for _, old := range c.Env {
			if !strings.HasPrefix(old, key+"=") {
				env = append(env, old)
			}
		}
		c.Env = append(env, key+"="+value)
	case "LABEL":
		if !pair {
			return fmt.Errorf("write it as LABEL NAME=VALUE")
		}
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[key] = value
	case "EXPOSE":
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		if !strings.Contains(rest, "/") {
			rest += "/tcp"
		}
		c.ExposedPorts[rest] = struct{}{}
	case "VOLUME":
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[rest] = struct{}{}
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	default:
		return fmt.Errorf("not an instruction that changes a config")
	}
	return nil
}

// commandWords reads the two forms of a command in a Dockerfile: a JSON array, or a line for the shell.
func commandWords(text string) []string {
	var words []string
	if json.Unmarshal([]byte(text), &words) == nil {
		return words
	}
	return []string{"/bin/sh", "-c", text}
}

func (a *app) squashCommand() *cobra.Command {
	var keep int
	var compression string
	cmd := &cobra.Command{
		Use:               "squash [--keep N] IMAGE [NAME]",
		GroupID:           groupImages,
		Short:             "make an image with fewer layers",
		Long:              "Make an image like IMAGE whose layers are one, but the lowest N, which stay. Prints its id.",
		Example:           `  unionfsd squash --keep 1 nginx:mine nginx:small`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: a.onLayers(func(cmd *cobra.Command, args []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			img, err := store.Image(args[0])
			if err != nil {
				return fmt.Errorf("squash: %w", err)
			}
			c := image.Change{CreatedBy: "unionfsd squash", Created: created(), Compression: image.Compression(compression)}
			if len(args) == 2 {
				c.Name = args[1]
			}
			small, err := store.Squash(cmd.Context(), img, keep, c, image.Options{})
			if err != nil {
				return fmt.Errorf("squash: %w", err)
			}
			fmt.Fprintln(a.stdout, small.ID)
			return nil
		}),
	}
	cmd.Flags().IntVar(&keep, "keep", 0, "leave the lowest `N` layers as they are")
	cmd.Flags().StringVar(&compression, "compression", "gzip", "`HOW` the layer is compressed: gzip, zstd or none")
	return cmd
}
