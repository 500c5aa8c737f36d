package ns

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What is masked is mounted over, read-only, before the mount table is verified and anything of the program runs.
func TestMaskIsPlanned(t *testing.T) {
	ops := plan(Config{Mask: []string{"/var/lib//x/"}})
	mounted, verified := false, false
	for _, o := range ops {
		switch {
		case o.Verb == verbMount && o.Path == "/var/lib/x":
			mounted = o.FS == "tmpfs" && o.Attr&unix.MOUNT_ATTR_RDONLY != 0
		case o.Verb == verbVerify:
			verified = mounted
		}
	}
	if !mounted || !verified {
		t.Errorf("mounted %v, verified %v in the plan %v", mounted, verified, ops)
	}
}
