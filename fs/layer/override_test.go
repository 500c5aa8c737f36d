package layer

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverrideText(t *testing.T) {
	for _, test := range []struct {
		value string
		was   uint32 // type of the file that has the attribute
		want  unix.Stat_t
		again string // empty if the same
	}{
		{"0:0:755", unix.S_IFDIR, unix.Stat_t{Mode: unix.S_IFDIR | 0o755}, ""},
		{"1000:2000:4755", unix.S_IFREG, unix.Stat_t{Uid: 1000, Gid: 2000, Mode: unix.S_IFREG | 0o4755}, ""},
		{"1:2:644:file", unix.S_IFREG, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFREG | 0o644}, "1:2:644"},
		{"1:2:755:dir", unix.S_IFDIR, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFDIR | 0o755}, "1:2:755"},
		{"1:2:644:pipe", unix.S_IFREG, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFIFO | 0o644}, ""},
		{"1:2:644:socket", unix.S_IFREG, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFSOCK | 0o644}, ""},
		{"1:2:660:block-8-1", unix.S_IFREG, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFBLK | 0o660, Rdev: unix.Mkdev(8, 1)}, ""},
		{"1:2:666:char-1-3", unix.S_IFREG, unix.Stat_t{Uid: 1, Gid: 2, Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)}, ""},
	} {
		got := unix.Stat_t{Mode: test.was | 0o755}
		if err := parseOverride(test.value, &got); err != nil || got != test.want {
			t.Errorf("%q is %+v, %v, want %+v", test.value, got, err, test.want)
		}
		want := test.value
		if test.again != "" {
			want = test.again
		}
		if got := string(formatOverride(&test.want)); got != want {
			t.Errorf("%q is written as %q, want %q", test.value, got, want)
		}
	}
	for _, bad := range []string{"", "1:2", "1:2:8", "x:2:755", "1:-2:755", "1:2:755:", "1:2:755:door", "1:2:755:block", "1:2:755:char-1", "1:2:755:file:x"} {
		var st unix.Stat_t
		if err := parseOverride(bad, &st); err == nil {
			t.Errorf("%q is taken for %+v", bad, st)
		} else if st != (unix.Stat_t{}) {
			t.Errorf("%q is refused, but changes %+v", bad, st)
		}
	}
}
