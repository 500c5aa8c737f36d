package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestInject checks that a Fault sees calls before and after they are made, and that its error takes their place.
func TestInject(t *testing.T) {
	defer Inject(nil)
	var seen []string
	var fail error
	Inject(func(call string, done bool) error {
		if done {
			call += " done"
		}
		seen = append(seen, call)
		return fail
	})
	var st unix.Stat_t
	if err := Fstatat(unix.AT_FDCWD, "/", &st, 0); err != nil || st.Ino == 0 {
		t.Errorf("fstatat: %v, %+v", err, st)
	}
	fail = unix.EDQUOT
	fd, err := Openat(unix.AT_FDCWD, "/", unix.O_RDONLY, 0)
	if err != unix.EDQUOT || fd != -1 {
		t.Errorf("openat: %d, %v", fd, err)
	}
	Inject(nil)
	if err := Fstatat(unix.AT_FDCWD, "/", &st, 0); err != nil {
		t.Error(err)
	}
	if got, want := len(seen), 3; got != want || seen[0] != "fstatat" || seen[1] != "fstatat done" || seen[2] != "openat" {
		t.Errorf("seen: %q", seen)
	}
}

// BenchmarkTry measures what the seam costs a system call when nothing is injected.
func BenchmarkTry(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = try("", func() error { return nil })
	}
}
