package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/image"
	"github.com/unionfsd/unionfsd/internal/state"
)

// imageStore is the image store in the state root of this call.
func (a *app) imageStore() (*image.Store, error) {
	root, err := a.state()
	if err != nil {
		return nil, err
	}
	return image.At(root.Dir()), nil
}

// image returns the image that arg names.
func (a *app) image(arg string) (*image.Image, error) {
	store, err := a.imageStore()
	if err != nil {
		return nil, err
	}
	return store.Image(arg)
}

func imageNames(root state.Root) []string {
	images, _ := image.At(root.Dir()).Images()
	var names []string
	for _, img := range images {
		for _, n := range img.Names {
			names = append(names, image.ShortName(n))
		}
	}
	return names
}

// imageInfo is what "images --json" tells of one.
type imageInfo struct {
	ID      string    `json:"id"`
	Names   []string  `json:"names"`
	Created time.Time `json:"created"`
	Size    int64     `json:"size"`
}

func (a *app) imagesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "images [--json]",
		GroupID: groupImages,
		Short:   "list the images",
		Long:    "List the images of the state root, the last one that was added first. SIZE is that of all files in the layers.",
		Example: `  unionfsd images --json | jq -r '.[].names[]'`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			images, err := store.Images()
			if err != nil {
				return err
			}
			list := []imageInfo{}
			for _, img := range images {
				size, err := img.Size()
				if err != nil {
					return err
				}
				info := imageInfo{ID: img.ID, Names: []string{}, Created: img.Config.Created.Time, Size: size}
				for _, n := range img.Names {
					info.Names = append(info.Names, image.ShortName(n))
				}
				list = append(list, info)
			}
			if asJSON {
				return a.printJSON(list)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE")
			for _, info := range list {
				if len(info.Names) == 0 {
					info.Names = []string{"<none>:<none>"}
				}
				for _, n := range info.Names {
					i := strings.LastIndexByte(n, ':')
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n[:i], n[i+1:], image.Short(info.ID), ago(info.Created), decimal(info.Size))
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// decimal is a size as Docker shows it: three digits, and units of 1000.
func decimal(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.3g%s", v, units[i])
}

// ago is how long ago t is, in the words of Docker (HumanDuration in docker/go-units).
func ago(t time.Time) string {
	d := time.Since(t)
	sec, min, h := int(d.Seconds()), int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case t.Unix() <= 0:
		return "N/A"
	case sec < 1:
		return "Less than a second ago"
	case sec == 1:
		return "1 second ago"
	case sec < 60:
		return fmt.Sprintf("%d seconds ago", sec)
	case min == 1:
		return "About a minute ago"
	case min < 60:
		return fmt.Sprintf("%d minutes ago", min)
	case h == 1:
		return "About an hour ago"
	case h < 48:
		return fmt.Sprintf("%d hours ago", h)
	case h < 24*7*2:
		return fmt.Sprintf("%d days ago", h/24)
	case h < 24*30*2:
		return fmt.Sprintf("%d weeks ago", h/24/7)
	case h < 24*365*2:
		return fmt.Sprintf("%d months ago", h/24/30)
	default:
		return fmt.Sprintf("%d years ago", h/24/365)
	}
}

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "tag IMAGE NAME",
		GroupID:           groupImages,
		Short:             "give an image one more name",
		Example:           `  unionfsd tag nginx:latest nginx:mine`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := a.imageStore()
			if err != nil {
				return err
			}
			img, err := store.Image(args[0])
			if err != nil {
				return fmt.Errorf("tag: %w", err)
			}
			return store.Tag(img, args[1])
		},
	}
}

func (a *app) rmiCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rmi IMAGE...",
		GroupID: groupImages,
		Short:   "remove images, or names of images",
		Long: `Remove the name IMAGE from its image, and with the last name or by its id the image itself, and its layers as far as
no other image or container has them.`,
		Example:           `  unionfsd rmi nginx:mine`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: a.onLayers(func(_ *cobra.Command, args []string) error {
			return a.each(args, "rmi", a.removeImage)
		}),
	}
}

func (a *app) removeImage(arg string) error {
	store, err := a.imageStore()
	if err != nil {
		return err
	}
	img, err := store.Image(arg)
	if err != nil {
		return err
	}
	root, err := a.state()
	if err != nil {
		return err
	}
	containers, err := root.Containers()
	if err != nil {
		return err
	}
	names, gone, err := store.Remove(img, arg, func() error {
		for _, c := range containers {
			if c.Image == img.ID {
				return fmt.Errorf("container %q is made of it; remove that first: unionfsd rm %s", c.Name, c.Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		fmt.Fprintln(a.stdout, "Untagged: "+n)
	}
	if !gone {
		return nil
	}
	fmt.Fprintln(a.stdout, "Deleted: "+img.ID)
	if _, _, err := a.collect(); !errors.Is(err, image.ErrHeld) { // then a later gc does it
		return err
	}
	return nil
}

func (a *app) gcCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "gc",
		GroupID: groupImages,
		Short:   "remove layers that nobody needs",
		Long: `Remove the layers and blobs that no image has, but layers that containers and mounted unions use, and what interrupted
commands have left behind.`,
		Example: `  unionfsd gc`,
		Args:    cobra.NoArgs,
		RunE: a.onLayers(func(*cobra.Command, []string) error {
			layers, bytes, err := a.collect()
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%d layers and %s of archives removed\n", layers, decimal(bytes))
			return nil
		}),
	}
}

// collect removes what no image, container or union needs.
func (a *app) collect() (layers int, bytes int64, err error) {
	root, err := a.state()
	if err != nil {
		return 0, 0, err
	}
	return image.At(root.Dir()).GC(func() ([]string, error) { return layersInUse(root) })
}

// layersInUse returns the lower layers of all containers and unions.
func layersInUse(root state.Root) ([]string, error) {
	containers, err := root.Containers()
	if err != nil {
		return nil, err
	}
	mounts, err := root.Mounts()
	if err != nil {
		return nil, err
	}
	var specs []string
	for _, c := range containers {
		specs = append(specs, string(c.Spec))
	}
	for _, m := range mounts {
		specs = append(specs, string(m.Spec))
	}
	var dirs []string
	for _, text := range specs {
		spec, _, err := layer.ParseOptions(text)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, spec.Lower...)
	}
	return dirs, nil
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "inspect IMAGE...",
		GroupID:           groupImages,
		Short:             "print what is known of images, as docker image inspect",
		Example:           `  unionfsd inspect nginx | jq '.[].RootFS'`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(_ *cobra.Command, args []string) error {
			list := []inspected{}
			for _, arg := range args {
				img, err := a.image(arg)
				if err != nil {
					return fmt.Errorf("inspect: %w", err)
				}
				info, err := inspect(img)
				if err != nil {
					return fmt.Errorf("inspect: %w", err)
				}
				list = append(list, info)
			}
			return a.printJSON(list)
		},
	}
}

// inspected is an image in the words of Docker.
type inspected struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Parent       string
	Comment      string
	Created      time.Time
	Author       string
	Config       image.Config
	Architecture string
	Os           string
	Size         int64
	GraphDriver  graphDriver
	RootFS       rootFS
}

type rootFS struct {
	Type   string
	Layers []string
}

// graphDriver is where the layers of an image are. What would be mounted is in UpperDir:LowerDir: the upper directory
// is the topmost layer of the image, which a container must not write.
type graphDriver struct {
	Name string
	Data struct {
		LowerDir  string `json:",omitempty"`
		MergedDir string `json:",omitempty"`
		UpperDir  string
		WorkDir   string `json:",omitempty"`
	}
}

func inspect(img *image.Image) (inspected, error) {
	info := inspected{ID: img.ID, RepoTags: []string{}, RepoDigests: []string{}, Parent: img.Parent, Created: img.Config.Created.Time,
		Author: img.Config.Author, Config: img.Config.Config, Architecture: img.Config.Architecture, Os: img.Config.OS,
		RootFS: rootFS{Type: "layers", Layers: []string{}}}
	for _, n := range img.Names {
		info.RepoTags = append(info.RepoTags, image.ShortName(n))
	}
	for _, n := range img.RepoDigests {
		info.RepoDigests = append(info.RepoDigests, image.ShortName(n))
	}
	for _, h := range img.Config.RootFS.DiffIDs {
		info.RootFS.Layers = append(info.RootFS.Layers, h.String())
	}
	if n := len(img.Config.History); n > 0 {
		info.Comment = img.Config.History[n-1].Comment
	}
	var err error
	if info.Size, err = img.Size(); err != nil {
		return info, err
	}
	dirs, err := img.Dirs()
	if err != nil {
		return info, err
	}
	info.GraphDriver.Name = "overlay2"
	info.GraphDriver.Data.UpperDir = dirs[0]
	info.GraphDriver.Data.LowerDir = strings.Join(dirs[1:], ":")
	return info, nil
}

func (a *app) historyCommand() *cobra.Command {
	var asJSON, whole bool
	cmd := &cobra.Command{
		Use:               "history [--no-trunc] [--json] IMAGE",
		GroupID:           groupImages,
		Short:             "show how an image was made",
		Example:           `  unionfsd history nginx:mine`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(_ *cobra.Command, args []string) error {
			img, err := a.image(args[0])
			if err != nil {
				return fmt.Errorf("history: %w", err)
			}
			rows, err := a.history(img)
			if err != nil {
				return fmt.Errorf("history: %w", err)
			}
			if asJSON {
				return a.printJSON(rows)
			}
			return printHistory(a.stdout, rows, whole)
		},
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "do not shorten anything")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// historyRow is one step of the making of an image.
type historyRow struct {
	ID        string    `json:"id"` // <missing> where the step was made elsewhere
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Size      int64     `json:"size"`
	Comment   string    `json:"comment"`
}

// history returns the steps, the last first. The images that were made here know their parents, and so the steps at which
// those ended.
func (a *app) history(img *image.Image) ([]historyRow, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	var rows []historyRow
	n := 0
	for _, h := range img.Config.History {
		row := historyRow{ID: "<missing>", Created: h.Created.Time, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer && n < len(layers) {
			row.Size = layers[n].Size
			n++
		}
		rows = append(rows, row)
	}
	for ; n < len(layers); n++ { // a layer that nobody tells of
		rows = append(rows, historyRow{ID: "<missing>", Size: layers[n].Size})
	}
	for at := img; at != nil; {
		if i := len(at.Config.History) - 1; i >= 0 && i < len(rows) {
			rows[i].ID = at.ID
		}
		if at.Parent == "" {
			break
		}
		if at, err = a.image(at.Parent); errors.Is(err, image.ErrNoImage) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	slices.Reverse(rows)
	return rows, nil
}

func printHistory(out io.Writer, rows []historyRow, whole bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tCREATED\tCREATED BY\tSIZE\tCOMMENT")
	for _, r := range rows {
		by := []rune(strings.ReplaceAll(oneLine(r.CreatedBy), "\t", " "))
		if !whole {
			r.ID = image.Short(r.ID)
			if len(by) > 45 {
				by = append(by[:44], '…')
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, ago(r.Created), string(by), decimal(r.Size), oneLine(r.Comment))
	}
	return w.Flush()
}

func (a *app) layersCommand() *cobra.Command {
	var asJSON, whole bool
	cmd := &cobra.Command{
		Use:     "layers [--no-trunc] [--json] [IMAGE|ID]",
		GroupID: groupImages,
		Short:   "show the layers of images",
		Long: `Show the layers of IMAGE, or of all images, the topmost first; with the beginning of a chain id, a diff id or a digest,
the layers that have it. A layer that several images share is unpacked once: SHARED tells how many have it. PATH is the
directory that a union takes as a lower layer.`,
		Example: `  unionfsd layers nginx
  unionfsd layers 84185e3d`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeWith(imageNames),
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := a.layers(args)
			if err != nil {
				return fmt.Errorf("layers: %w", err)
			}
			if asJSON {
				return a.printJSON(rows)
			}
			short := image.Short
			if whole {
				short = func(s string) string { return s }
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "CHAIN ID\tDIFF ID\tPARENT\tSIZE\tSHARED\tPATH")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", short(r.ChainID), short(r.DiffID), orDash(short(r.Parent)), decimal(r.Size), r.Shared, r.Dir)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "do not shorten ids")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// layerRow is what "layers --json" tells of one.
type layerRow struct {
	ChainID string `json:"chain_id"`
	DiffID  string `json:"diff_id"`
	Parent  string `json:"parent,omitempty"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	Shared  int    `json:"shared_by"`
	Dir     string `json:"path"`
	Lacks   string `json:"lacks,omitempty"` // see image.Layer
}

func (a *app) layers(args []string) ([]layerRow, error) {
	store, err := a.imageStore()
	if err != nil {
		return nil, err
	}
	images, err := store.Images()
	if err != nil {
		return nil, err
	}
	shared, found := map[string]int{}, map[string]int{}
	rows := []layerRow{}
	for _, img := range images {
		layers, err := img.Layers()
		if err != nil {
			return nil, err
		}
		for i, l := range slices.Backward(layers) {
			if !slices.ContainsFunc(layers[:i], func(other image.Layer) bool { return other.DiffID == l.DiffID }) {
				shared[l.DiffID]++
			}
			if found[l.ChainID]++; found[l.ChainID] == 1 {
				rows = append(rows, layerRow{l.ChainID, l.DiffID, l.Parent, l.Digest, l.Size, 0, l.Dir, l.Lacks})
			}
		}
	}
	for i := range rows {
		rows[i].Shared = shared[rows[i].DiffID]
	}
	if len(args) == 0 {
		return rows, nil
	}
	img, err := store.Image(args[0])
	if err != nil && !errors.Is(err, image.ErrNoImage) {
		return nil, err
	}
	if img != nil {
		var own []layerRow
		for _, chain := range slices.Backward(image.ChainIDs(img.Config.RootFS.DiffIDs)) {
			own = append(own, rows[slices.IndexFunc(rows, func(r layerRow) bool { return r.ChainID == chain })])
		}
		return own, nil
	}
	wanted := func(r layerRow) bool {
		return image.HasPrefix(r.ChainID, args[0]) || image.HasPrefix(r.DiffID, args[0]) || image.HasPrefix(r.Digest, args[0])
	}
	rows = slices.DeleteFunc(rows, func(r layerRow) bool { return !wanted(r) })
	if len(rows) == 0 {
		return nil, fmt.Errorf("%q is neither an image nor the beginning of a layer's id; see unionfsd images and unionfsd layers", args[0])
	}
	return rows, nil
}
