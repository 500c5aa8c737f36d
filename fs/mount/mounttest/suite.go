package mounttest

import (
	"slices"
	"testing"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// check is one thing that every union does.
type check struct {
	name string
	run  func(u *union)
}

// suite is all checks, in the order of the chapters of a file system's manual.
var suite = []struct {
	name   string
	checks []check
}{
	{"names", names},
	{"readdir", readdir},
	{"copyup", copyup},
	{"create", create},
	{"remove", remove},
	{"rename", rename},
	{"redirects", redirects},
	{"link", link},
	{"handles", handles},
	{"hardlinks", hardlinks},
	{"index", index},
	{"origins", origins},
	{"metacopies", metacopies},
	{"dataonly", dataonly},
	{"attr", attr},
	{"protected", protected},
	{"times", times},
	{"xattr", xattrs},
	{"userxattr", userxattr},
	{"open", open},
	{"data", data},
	{"locks", locks},
	{"perms", perms},
	{"acl", acl},
	{"special", special},
	{"readonly", readonly},
	{"stale", stale},
	{"limits", limits},
	{"mountover", mountover},
	{"lower", lowerEdit},
}

// Run runs the suite, or some groups of it, on the unions of s.
func Run(t *testing.T, s *Server, groups ...string) {
	testfs.NeedRoot(t)
	for _, group := range suite {
		if len(groups) > 0 && !slices.Contains(groups, group.name) {
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.checks {
				t.Run(c.name, func(t *testing.T) { runCheck(t, s, c) })
			}
		})
	}
	if s.live && len(groups) == 0 {
		for _, c := range live {
			t.Run("live/"+c.name, func(t *testing.T) { runCheck(t, s, c) })
		}
	}
}

func runCheck(t *testing.T, s *Server, c check) {
	u := &union{TB: t, server: s}
	defer u.finish()
	c.run(u)
}
