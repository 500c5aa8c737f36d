package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/state"
)

// containerInfo is what "ps --json" tells of one.
type containerInfo struct {
	state.Container
	Status string `json:"status"`
}

func (a *app) psCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ps [--json]",
		GroupID: groupContainers,
		Short:   "list the containers",
		Long: `List the containers of the state root, those that ended included. PID is that of the container's init while it
runs: nsenter -t PID -a enters the container.`,
		Example: `  unionfsd ps
  unionfsd ps --json | jq -r '.[] | select(.status == "running").name'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			root, err := a.state()
			if err != nil {
				return err
			}
			reap(root)
			list, err := root.Containers()
			if err != nil {
				return err
			}
			containers := make([]containerInfo, len(list))
			for i, c := range list {
				if !c.Running {
					c.PID, c.Supervisor = 0, 0 // they may be others' by now
				}
				containers[i] = containerInfo{c, c.Status()}
			}
			if asJSON {
				return a.printJSON(containers)
			}
			return a.printContainers(containers)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) printContainers(list []containerInfo) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATUS\tPID\tBACKEND\tROOT\tCOMMAND\tCREATED")
	for _, c := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Status, number(c.PID), orDash(c.Backend),
			orDash(oneLine(string(c.Rootfs))), orDash(oneLine(commandLine(c.Command))), c.Created.Format(time.DateTime))
	}
	return w.Flush()
}

// commandLine joins a command for a table, short enough for one.
func commandLine(argv []state.Text) string {
	const most = 40
	words := make([]string, len(argv))
	for i, arg := range argv {
		words[i] = shell(string(arg))
	}
	line := []rune(strings.Join(strings.Fields(strings.Join(words, " ")), " "))
	if len(line) > most {
		return string(line[:most-3]) + "..."
	}
	return string(line)
}
