package main

import (
	"github.com/spf13/cobra"

	"github.com/unionfsd/unionfsd/internal/state"
)

// completion offers words for an argument of a command. What cannot be read is not offered.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completeWith offers what the lists hold now.
func (a *app) completeWith(lists ...func(state.Root) []string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var words []string
		if root, err := a.state(); err == nil {
			for _, list := range lists {
				words = append(words, list(root)...)
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func mountPoints(root state.Root) []string {
	mounts, _ := root.Mounts()
	words := make([]string, len(mounts))
	for i, m := range mounts {
		words[i] = string(m.Mountpoint)
	}
	return words
}

func containerNames(root state.Root) []string {
	containers, _ := root.Containers()
	words := make([]string, len(containers))
	for i, c := range containers {
		words[i] = c.Name
	}
	return words
}
