package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/holders"
	"github.com/unionfsd/unionfsd/internal/state"
)

// switchTimeout bounds how long a process may take to switch a union: the upper layer is written to disk first.
const switchTimeout = 2 * time.Minute

// switchRequest is what is asked of the process that serves a union.
type switchRequest struct {
	To    string // backend
	Lazy  bool   // leave those who have something open in the old union there
	Force bool   // and take it from them
}

// takeover is what a new process is to switch that is to serve a union.
type takeover struct {
	Request switchRequest
	Dev     string // of what is mounted, as in mountinfo
}

// switchReply is the answer to a switchRequest.
type switchReply struct {
	Failure string           // empty if all went well
	Holders []holders.Holder // because of whom it did not
	Left    []holders.Holder // who is left in the old union
	Waited  time.Duration    // how long users of the union had to wait at most
}

// fail adds an error, if it is one.
func (r *switchReply) fail(err error) {
	switch {
	case err == nil:
	case r.Failure == "":
		r.Failure = err.Error()
	default:
		r.Failure += "; " + err.Error()
	}
}

// report is the reply as what a daemon reports to who started it, see spawn.
func (r switchReply) report() error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return errors.New(string(text))
}

// reported is the reply that spawn returned.
func reported(warning string, err error) (switchReply, error) {
	if err != nil {
		warning = err.Error()
	}
	var r switchReply
	if json.Unmarshal([]byte(warning), &r) == nil {
		return r, nil
	}
	return r, err // the daemon did not get as far as that
}

func (a *app) switchCommand() *cobra.Command {
	var r switchRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "switch [--lazy | --force] [--json] MOUNTPOINT kernel|fuse",
		GroupID: groupUnions,
		Short:   "change who serves a mounted union",
		Long: `Change the backend of the union at MOUNTPOINT while it is used. Programs that open files by their paths notice
nothing but a call that takes some milliseconds longer. The tree is the same before and after.

What is open stays in the old union. So the switch is refused while files or directories are held open, mapped, or
working directories, and the holders are listed. With --lazy they are left there: open files can still be read and
written, and both unions see it, but names cannot be looked up or changed from there; a shell must cd into the union
again. Linux 6.5 or later.`,
		Example: `  unionfsd switch merged kernel
  unionfsd switch merged fuse && unionfsd top merged     # measure for a while
  unionfsd switch --lazy merged kernel                   # although a log file is held open
  unionfsd switch --json merged kernel | jq -r '.holders[].pid'`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"kernel", "fuse"}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeWith(mountPoints)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, ok := backends[args[1]]; !ok {
				return usagef("unknown backend %q; it is fuse or kernel", args[1])
			}
			if r.Lazy && r.Force {
				return usagef("both --lazy and --force; drop one")
			}
			r.To = args[1]
			if err := a.switchUnion(cmd.Context(), args[0], r, asJSON); err != nil {
				return fmt.Errorf("switch %s: %w", args[0], err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&r.Lazy, "lazy", false, "leave those who have something open in the old union there")
	flags.BoolVar(&r.Force, "force", false, "as --lazy, but what they have open fails with ENOTCONN from then on; nobody is killed. Not from the kernel")
	flags.BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// switched is what "switch --json" tells.
type switched struct {
	Mountpoint   state.Text       `json:"mountpoint"`
	Backend      string           `json:"backend"`
	Previous     string           `json:"previous"`
	Milliseconds float64          `json:"milliseconds"` // that users had to wait at most
	Holders      []holders.Holder `json:"holders"`      // who is in the way, or left in the old union
}

func (a *app) switchUnion(ctx context.Context, arg string, r switchRequest, asJSON bool) error {
	root, err := a.state()
	if err != nil {
		return err
	}
	u, err := oneUnion(root, arg)
	if err != nil {
		return err
	}
	result := switched{Mountpoint: u.Mountpoint, Backend: u.Backend, Previous: u.Backend, Holders: []holders.Holder{}}
	if u.Backend == r.To {
		a.note("%s is served by %s already", arg, r.To)
		return a.tellSwitched(result, asJSON)
	}
	r.Lazy = r.Lazy || r.Force
	if r.Force && u.Backend == "kernel" {
		return usagef("--force: the kernel does not take from anybody what is open; pass --lazy, or stop who holds it")
	}
	reply, err := a.askToSwitch(ctx, root, u, r)
	if err != nil {
		return err
	}
	if reply.Failure == "" {
		result.Backend = r.To
		result.Milliseconds = float64(reply.Waited.Microseconds()) / 1000
	}
	result.Holders = append(append(result.Holders, reply.Holders...), reply.Left...)
	if err := a.tellSwitched(result, asJSON); err != nil || reply.Failure == "" {
		return err
	}
	if len(reply.Holders) > 0 {
		return fmt.Errorf("%s; stop them, or pass --lazy", reply.Failure)
	}
	return errors.New(reply.Failure)
}

// tellSwitched prints what was done; holders, if there are any, also without --json.
func (a *app) tellSwitched(s switched, asJSON bool) error {
	if asJSON {
		return a.printJSON(s)
	}
	if s.Backend != s.Previous {
		a.verbosef("served by %s; users waited for %.1f ms at most", s.Backend, s.Milliseconds)
	}
	if len(s.Holders) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tCOMMAND\tUSE\tPATH")
	for _, h := range s.Holders {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", h.PID, oneLine(h.Command), strings.TrimSpace(h.Use+" "+h.Mode), oneLine(h.Path))
	}
	return w.Flush()
}

// askToSwitch lets the process that serves u switch it, or a new one if there is none.
func (a *app) askToSwitch(ctx context.Context, root state.Root, u state.Mount, r switchRequest) (switchReply, error) {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	if server, alive := u.Server(); alive {
		server.Close()
		reply, err := askControl(ctx, u, r)
		if !errors.Is(err, state.ErrNoControl) && !errors.Is(err, unix.ECONNREFUSED) { // it has just ended
			return reply, err
		}
	}
	if u.Backend == "fuse" {
		return switchReply{}, fmt.Errorf("nobody serves it that could be asked; unmount it, and mount it with --backend %s", r.To)
	}
	spec, err := switchableSpec(u)
	if err != nil {
		return switchReply{}, err
	}
	j := job{Backend: u.Backend, Spec: spec, Target: string(u.Mountpoint), StateRoot: root.Dir(), Takeover: &takeover{r, u.Dev}}
	return reported(j.spawn())
}

// askControl asks the process that serves u.
func askControl(ctx context.Context, u state.Mount, r switchRequest) (switchReply, error) {
	var reply switchReply
	body, err := json.Marshal(r)
	if err != nil {
		return reply, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://unionfsd/switch", bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return u.DialControl(ctx) },
		DisableKeepAlives: true,
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err // the URL means nothing to a reader
		}
		return reply, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("process %d answered %s", u.PID, response.Status)
	}
	if err == nil {
		err = json.Unmarshal(text, &reply)
	}
	return reply, err
}

// switchableSpec is what a union that the kernel serves is made of, if all of it is known.
func switchableSpec(u state.Mount) (layer.Spec, error) {
	if u.Spec == "" {
		return layer.Spec{}, errors.New("it is not known what it is made of; unmount it, and mount it with unionfsd")
	}
	spec, unknown, err := layer.ParseOptions(string(u.Spec))
	if err != nil {
		return spec, err
	}
	for _, option := range unknown {
		if name, value, _ := strings.Cut(option, "="); value != "off" && name != "uuid" && name != "xino" && name != "nouserxattr" {
			return spec, fmt.Errorf("it was mounted with the option %s, which unionfsd does not know; unmount it, and mount it with unionfsd", option)
		}
	}
	for _, dir := range slices.Concat([]string{spec.Upper, spec.Work}, spec.Lower, spec.Data) {
		if dir != "" && !filepath.IsAbs(dir) {
			return spec, fmt.Errorf("it was mounted with the relative path %q; unmount it, and mount it with unionfsd", dir)
		}
	}
	return spec, nil
}
