package state

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMountRecords(t *testing.T) {
	r := testRoot(t)
	before, err := r.Mounts() // unions that others have mounted on this host
	if err != nil {
		t.Fatal(err)
	}
	// /proc is mounted wherever tests run, and a record does not ask what kind of file system it is of.
	m, err := r.AddMount(Mount{Mountpoint: "/proc", Backend: "fuse", PID: os.Getpid(), Spec: "lowerdir=/a"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Mounts()
	if err != nil || len(list) != len(before)+1 {
		t.Fatalf("%d unions, %v; want one more than %d", len(list), err, len(before))
	}
	if found := list[indexOfPath(list, "/proc")]; found.PID != os.Getpid() || found.Spec != "lowerdir=/a" || found.FSType != "proc" {
		t.Errorf("found %+v", found)
	}
	if server, ok := m.Server(); !ok {
		t.Error("the process that serves the union was not found")
	} else {
		server.Close()
	}
	m.Start++
	if _, ok := m.Server(); ok {
		t.Error("a process with another start time was taken for the one that serves the union")
	}
	for range 2 { // gone is gone, however often it is said
		if err := r.DropMount(m); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := r.Mounts(); err != nil || len(list) != len(before) {
		t.Errorf("after the drop: %d unions, %v", len(list), err)
	}
}

func indexOfPath(list []Mount, path Text) int {
	for i, m := range list {
		if m.Mountpoint == path {
			return i
		}
	}
	return 0
}

func TestAddMountWhereNothingIs(t *testing.T) {
	if _, err := testRoot(t).AddMount(Mount{Mountpoint: "/nothing/is/here"}); err == nil {
		t.Error("a record of a mount that is not there was made")
	}
}

// A record goes when its mount is seen to be gone, and stays where that cannot be seen.
func TestStaleRecords(t *testing.T) {
	namespace, boot, err := here()
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	for _, test := range []struct {
		name string
		m    Mount
		stay bool
	}{
		{"unmounted", Mount{Namespace: namespace, Boot: boot, Since: old}, false},
		{"being made", Mount{Namespace: namespace, Boot: boot, Since: time.Now()}, true},
		{"other namespace", Mount{Namespace: "mnt:[1]", Boot: boot, Since: old}, true},
		{"before the boot", Mount{Namespace: "mnt:[1]", Boot: "x", Since: old}, false},
		{"other file system there", Mount{Mountpoint: "/proc", FSType: "overlay", Dev: "0:1", Namespace: namespace, Boot: boot, Since: old}, false},
	} {
		r := testRoot(t)
		dir, err := r.sub("mounts")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "x.json")
		if err := write(file, test.m); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Mounts(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); (err == nil) != test.stay {
			t.Errorf("%s: record there = %v, want %v", test.name, err == nil, test.stay)
		}
	}
}

func TestSpecOf(t *testing.T) {
	for shown, want := range map[string]string{
		`rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,redirect_dir=on`:  `rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,redirect_dir=on`,
		`rw,lowerdir=/a\134:x:/b\040c,upperdir=/u\054v,workdir=/w"`: `rw,lowerdir=/a\:x:/b c,upperdir=/u\,v,workdir=/w\"`,
		`ro,lowerdir+=/a:x,lowerdir+=/b\134c,userxattr`:             `ro,lowerdir+=/a:x,lowerdir+=/b\\c,userxattr`,
	} {
		if got := specOf(shown); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", shown, got, want)
		}
	}
}
