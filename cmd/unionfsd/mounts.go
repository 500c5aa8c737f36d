package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/state"
)

// unionInfo is what "mounts --json" tells of one.
type unionInfo struct {
	Mountpoint state.Text   `json:"mountpoint"`
	Backend    string       `json:"backend"`
	Transport  string       `json:"transport,omitempty"` // of the requests: "/dev/fuse" or "io_uring"
	PID        int          `json:"pid,omitempty"`
	Lower      []state.Text `json:"lower"`
	Data       []state.Text `json:"data,omitempty"` // data-only lower layers
	Upper      state.Text   `json:"upper,omitempty"`
	Work       state.Text   `json:"work,omitempty"`
	Xattr      string       `json:"xattr,omitempty"`
	Since      time.Time    `json:"since,omitzero"`
	Metrics    string       `json:"metrics,omitempty"` // where they are served, if mount was told to
}

func (a *app) mountsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "mounts [--json]",
		GroupID: groupUnions,
		Short:   "list the mounted unions",
		Long: `List the unions of this mount namespace: those of unionfsd, and every overlay that the kernel knows of. What is not
known is shown as "-". Containers are listed by unionfsd ps.`,
		Example: `  unionfsd mounts
  unionfsd mounts --json | jq -r '.[].mountpoint'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			root, err := a.state()
			if err != nil {
				return err
			}
			mounts, err := root.Mounts()
			if err != nil {
				return err
			}
			unions := make([]unionInfo, len(mounts))
			for i, m := range mounts {
				unions[i] = describe(m)
			}
			if asJSON {
				return a.printJSON(unions)
			}
			return a.printUnions(unions)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// specOf is the spec of a mounted union; the zero Spec where nothing says what it is.
func specOf(m state.Mount) (layer.Spec, error) {
	spec, _, err := layer.ParseOptions(string(m.Spec)) // unknown ones are the kernel's, of no matter to us
	if err != nil {
		return spec, fmt.Errorf("union at %q: %w", m.Mountpoint, err)
	}
	return spec, nil
}

// describe tells what is known of a union. Others mount overlays with options that we do not understand.
func describe(m state.Mount) unionInfo {
	spec, err := specOf(m)
	if err != nil {
		m.Spec = ""
	}
	u := unionInfo{
		Mountpoint: m.Mountpoint,
		Backend:    m.Backend,
		Transport:  m.Transport,
		PID:        m.PID,
		Lower:      state.Texts(spec.Lower),
		Data:       state.Texts(spec.Data),
		Upper:      state.Text(spec.Upper),
		Work:       state.Text(spec.Work),
		Since:      m.Since,
		Metrics:    m.Metrics,
	}
	if m.Spec != "" {
		u.Xattr = "trusted"
		if spec.Options.UserXattr {
			u.Xattr = "user"
		}
	}
	return u
}

func (a *app) printUnions(unions []unionInfo) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MOUNTPOINT\tBACKEND\tPID\tLAYERS\tUPPER")
	for _, u := range unions {
		layers := len(u.Lower) + len(u.Data)
		if u.Upper != "" {
			layers++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oneLine(string(u.Mountpoint)), u.Backend,
			number(u.PID), number(layers), orDash(oneLine(string(u.Upper))))
	}
	return w.Flush()
}

// number prints n, and a dash for 0, which stands for unknown.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
