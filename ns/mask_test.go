package ns

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is masked is mounted over before anything of the program runs, read-only, and is in the list of mounts that is
// verified.
func TestMaskIsPlanned(t *testing.T) {
	ops := plan(Config{Argv: []string{"sh"}, Mask: []string{"/var/lib//x/"}})
	mounted, verified := false, false
	for _, o := range ops {
		switch {
		case o.Verb == verbMount && o.Path == "/var/lib/x":
			mounted = o.FS == "tmpfs" && o.Attr&unix.MOUNT_ATTR_RDONLY != 0
		case o.Verb == verbVerify:
			verified = mounted && strings.Contains(o.String(), "/var/lib/x")
		}
	}
	if !mounted || !verified {
		t.Errorf("mounted %v, verified %v in the plan %v", mounted, verified, ops)
	}
}
