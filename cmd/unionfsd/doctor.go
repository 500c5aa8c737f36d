package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor [--json]",
		GroupID: groupSystem,
		Short:   "say what works on this host, and how to fix the rest",
		Long: `Try what unionfsd needs on this host, and say how to fix what does not work. It changes nothing. Exits with 1 if
neither backend can work, else with 0.`,
		Example: `  unionfsd doctor
  unionfsd doctor --json | jq -r '.[] | select(.status != "ok").fix'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			checks := doctor.Run()
			print := a.printChecks
			if asJSON {
				print = func(checks []doctor.Check) error { return a.printJSON(checks) }
			}
			if err := print(checks); err != nil {
				return err
			}
			if !doctor.Usable(checks) {
				return errors.New("doctor: neither the FUSE backend nor the kernel's overlayfs can work here; see the fixes above")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) printChecks(checks []doctor.Check) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Status, c.Name, c.Detail)
		if c.Fix != "" {
			fmt.Fprintf(w, "\t\t  fix: %s\n", c.Fix)
		}
	}
	return w.Flush()
}
