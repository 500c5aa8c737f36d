package mountinfo

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const text = `22 28 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue
40 28 0:45 / /a\134b\012c rw shared:3 - fuse.unionfsd my\040union rw,user_id=0
41 40 0:46 / /a\134b\012c rw - overlay overlay rw,lowerdir=/x\134:y:/z
`
	got, err := parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{ID: "22", Parent: "28", Dev: "0:21", Root: "/", MountPoint: "/proc", FSType: "proc", Source: "proc", Options: "rw", MountOptions: "rw,relatime"},
		{ID: "36", Parent: "35", Dev: "98:0", Root: "/mnt1", MountPoint: "/mnt 2", FSType: "ext3", Source: "/dev/root", Options: "rw,errors=continue", Master: "1", MountOptions: "rw,noatime"},
		{ID: "40", Parent: "28", Dev: "0:45", Root: "/", MountPoint: "/a\\b\nc", FSType: "fuse.unionfsd", Source: "my union", Options: "rw,user_id=0", Shared: "3", MountOptions: "rw"},
		{ID: "41", Parent: "40", Dev: "0:46", Root: "/", MountPoint: "/a\\b\nc", FSType: "overlay", Source: "overlay", Options: `rw,lowerdir=/x\134:y:/z`, MountOptions: "rw"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if top, ok := Top(got, "/a\\b\nc"); !ok || top.ID != "41" {
		t.Errorf("Top = %q, %v; want the covering mount, 41", top, ok)
	}
	if dev := got[1].Device(); dev != unix.Mkdev(98, 0) {
		t.Errorf("Device = %#x", dev)
	}
	if _, ok := Top(got, "/a"); ok {
		t.Error("Top found a mount on /a, where none is")
	}
}

func TestParseRefusesShortLines(t *testing.T) {
	for _, line := range []string{"x", "22 28 0:21 / /proc - proc proc rw", "22 28 0:21 / /proc rw - proc proc"} {
		if _, err := parse(strings.NewReader(line)); err == nil {
			t.Errorf("line %q was accepted", line)
		}
	}
}

// The options of a union of many layers are longer than any fixed line buffer.
func TestParseLongLine(t *testing.T) {
	options := "lowerdir=" + strings.Repeat("/some/layer:", 100_000)
	got, err := parse(strings.NewReader("41 40 0:46 / /m rw - overlay overlay " + options))
	if err != nil || len(got) != 1 || got[0].Options != options {
		t.Fatalf("%d entries, error %v", len(got), err)
	}
}

func TestReadFindsProc(t *testing.T) {
	entries, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := Top(entries, "/proc"); !ok || e.FSType != "proc" {
		t.Errorf("mount on /proc = %q, %v", e, ok)
	}
}

func TestInside(t *testing.T) {
	entries := []Entry{
		{Dev: "8:1", Root: "/", MountPoint: "/"},
		{Dev: "0:5", Root: "/", MountPoint: "/tmp"},
		{Dev: "8:1", Root: "/data/state", MountPoint: "/var/lib/unionfsd"},
		{Dev: "8:2", Root: "/", MountPoint: "/home"},
		{Dev: "8:1", Root: "/pool", MountPoint: "/home"}, // covers the one before
	}
	for _, test := range []struct {
		path, dir, rel string
		ok             bool
	}{
		{"/var/lib/other", "/", "/var/lib/other", true},
		{"/var/lib/other", "/var/lib", "/other", true},
		{"/var/lib/other", "/var/lib/other", "/", true},
		{"/var/lib/other", "/var/lib/ot", "", false},
		{"/var/lib", "/var/lib/other", "", false},
		{"/var/lib/unionfsd/x", "/", "/data/state/x", true}, // a bind mount hides nothing
		{"/var/lib/unionfsd/x", "/data", "/state/x", true},
		{"/tmp/state", "/", "", false},
		{"/home/u", "/", "/pool/u", true},
		{"/pool/u", "/home", "/u", true},
	} {
		rel, ok := Inside(entries, test.path, test.dir)
		if ok != test.ok || ok && rel != test.rel {
			t.Errorf("Inside(%s, %s) = %q, %v; want %q, %v", test.path, test.dir, rel, ok, test.rel, test.ok)
		}
	}
}
