package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/fs/whiteout"
)

func (a *app) dfCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "df [--json]",
		GroupID: groupImages,
		Short:   "show what images take on disk",
		Long: `Show what images take on disk: LOGICAL is the sizes of all images together, UNIQUE their layers with each counted
once, as they are on disk, SHARED those of them that several images have, ARCHIVES what is kept for save and push.`,
		Example: `  unionfsd df`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			u, err := store.Usage()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(u)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "IMAGES\tLAYERS\tLOGICAL\tUNIQUE\tSHARED\tARCHIVES")
			fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\n", u.Images, u.Layers, decimal(u.Logical), decimal(u.Unique), decimal(u.Shared), decimal(u.Blobs))
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func (a *app) treeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "tree LAYER|CONTAINER|MOUNTPOINT|DIR",
		GroupID: groupImages,
		Short:   "show what is in a layer, and what it hides",
		Long: `Show the files of one layer as a tree: those of a layer of an image, by the beginning of its chain id, diff id or digest;
of the upper layer of a container or of a mounted union; or of a directory. Whiteouts and opaque directories are marked.`,
		Example: `  unionfsd tree 84185e3d
  unionfsd tree web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWith(containerNames, mountPoints),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err != nil { // a layer in the state root
				if done, err := a.asRoot(); done {
					return err
				}
			}
			dir, err := a.layerDir(args[0])
			if err != nil {
				return fmt.Errorf("tree: %w", err)
			}
			stack, err := layer.OpenReadOnly(layer.Spec{Lower: []string{dir}})
			if err != nil {
				return fmt.Errorf("tree: %w", err)
			}
			defer stack.Close()
			fmt.Fprintln(a.stdout, dir)
			return drawTree(a.stdout, stack.Lowers[0].Root, stack.Xattr, "")
		},
	}
}

// layerDir is the directory of the layer that arg names.
func (a *app) layerDir(arg string) (string, error) {
	if !strings.ContainsAny(arg, "./") {
		if rows, err := a.layers([]string{arg}); err == nil && len(rows) == 1 {
			return rows[0].Dir, nil
		}
	}
	if spec, err := a.specNamed(arg); err == nil {
		return cmp.Or(spec.Upper, spec.Lower[0]), nil
	}
	return arg, nil
}

// drawTree draws what is in a directory, in the way of tree(1).
func drawTree(w io.Writer, dir *layer.Dir, x layer.XattrNames, indent string) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i, name := range names {
		branch, below := "├── ", "│   "
		if i == len(names)-1 {
			branch, below = "└── ", "    "
		}
		var st unix.Stat_t
		if err := dir.Stat(name, &st); err != nil {
			return err
		}
		note := ""
		if whiteout.Is(&st) {
			note = " (whiteout)"
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			fmt.Fprintln(w, indent+branch+oneLine(name)+note)
			continue
		}
		sub, err := dir.OpenDir(name)
		if err != nil {
			return err
		}
		if o, oerr := whiteout.OpacityOf(sub.Self(), x); oerr == nil && o == whiteout.Opaque {
			note = " (opaque)"
		}
		fmt.Fprintln(w, indent+branch+oneLine(name)+note)
		err = drawTree(w, sub, x, indent+below)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
