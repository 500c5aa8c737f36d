package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// git: working in a clone that a lower layer has.
func init() {
	register(func() Workload {
		git := func(dir string, args ...string) (string, error) {
			// Some unions have several st_dev in one tree.
			env := []string{"GIT_DISCOVERY_ACROSS_FILESYSTEM=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + dir, "GIT_AUTHOR_NAME=b", "GIT_AUTHOR_EMAIL=b@b", "GIT_COMMITTER_NAME=b", "GIT_COMMITTER_EMAIL=b@b"}
			return command(filepath.Join(dir, "repo"), env, "git", append([]string{"-c", "gc.auto=0", "-c", "core.untrackedCache=false"}, args...)...)
		}
		status := func(e *Env) (int, error) {
			out, err := git(e.Dir, "status", "--porcelain")
			if err == nil && out != "" {
				err = fmt.Errorf("git status shows changes: %.60q", out)
			}
			return e.Scale.Of(treeEntries), err
		}
		return Workload{
			Name: "git", Group: "real",
			Doc: "git status, and git checkout of a branch that differs in a tenth of the files, in a large repository",
			Layers: Recipe{Name: "git", FromTree: true, Build: func(b *Builder) error {
				dir, err := b.Layer()
				if err != nil {
					return err
				}
				repo := filepath.Join(dir, "repo")
				if err := os.Mkdir(repo, 0o755); err != nil {
					return err
				}
				if err := copyTree(b.Tree, repo, b.Scale.Of(treeEntries)); err != nil {
					return err
				}
				for _, args := range []string{"init -q -b main", "add -A -f", "commit -q -m one", "checkout -q -b other"} {
					if _, err := git(dir, strings.Fields(args)...); err != nil {
						return err
					}
				}
				if err := changeTenth(repo); err != nil {
					return err
				}
				for _, args := range []string{"commit -q -a -m two", "checkout -q main"} {
					if _, err := git(dir, strings.Fields(args)...); err != nil {
						return err
					}
				}
				return nil
			}},
			Changes: true, Needs: []string{"git"},
			Steps: []Step{{
				Name: "git-status-cold", Cold: true,
				Before: func(e *Env) error { _, err := status(e); return err }, // refreshes inode numbers in the index
				Run:    status,
			}, {
				Name: "git-status", Run: status,
			}, {
				Name: "git-checkout",
				Run: func(e *Env) (int, error) {
					_, err := git(e.Dir, "checkout", "-q", "other")
					return e.Scale.Of(treeEntries) / 10, err
				},
			}},
		}
	})
}

// changeTenth adds a line to every tenth regular file below dir, but in .git.
func changeTenth(dir string) error {
	n := 0
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if n++; n%10 != 1 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("\n")
		return err
	})
}
