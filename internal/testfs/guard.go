package testfs

import (
	"os"
	"testing"
)

// MustWork names the environment variable that turns skipped tests into failures when it is "1": CI sets it, so
// that a machine on which unions cannot be mounted at all does not pass by skipping everything.
const MustWork = "UNIONFS_MUST_WORK"

// Skip skips the test because this host lacks what it needs, a kernel feature or a privilege, or fails it where
// [MustWork] says that nothing may be lacking.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(MustWork) == "1" {
		t.Fatalf("must not be skipped here ("+MustWork+"=1): "+format, args...)
	}
	t.Skipf(format, args...)
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}
