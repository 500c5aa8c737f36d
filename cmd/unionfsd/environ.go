package main

import (
	"fmt"
	"os"
	"strings"
)

// environment returns the variables of a program: those of the files, then the list, which wins. NAME alone stands for
// the value that this process has, if any, as with docker run.
func environment(list, files []string) ([]string, error) {
	var lines []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--env-file %q: %w; create it or correct the path", name, bare(err))
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(strings.TrimLeft(line, " \t"), "\r\n")
			if line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	var env []string
	for _, kv := range append(lines, list...) {
		name, _, given := strings.Cut(kv, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("environment variable %q; write it as NAME=VALUE", kv)
		}
		if given {
			env = append(env, kv)
		} else if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}
