package union_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// peerUnion mounts a union of an upper layer and one lower layer of the given content, with options as text.
func peerUnion(t *testing.T, options, lower string) (merged, upper string, spec layer.Spec) {
	t.Helper()
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	testfs.Write(t, dirs[0], lower)
	spec, unknown, err := layer.ParseOptions(options)
	if err != nil || len(unknown) > 0 {
		t.Fatalf("options %q: unknown %q, error %v", options, unknown, err)
	}
	spec.Lower, spec.Upper, spec.Work = []string{dirs[0]}, dirs[1], dirs[2]
	merged = testfs.TempDir(t)
	server.Mount(t, spec, merged)
	return merged, dirs[1], spec
}

// owner is UID:GID of the file.
func owner(t *testing.T, path ...string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(path...), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func wantOwner(t *testing.T, want string, path ...string) {
	t.Helper()
	if got := owner(t, path...); got != want {
		t.Errorf("owner of %s is %s, want %s", filepath.Join(path...), got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sh runs a shell script in dir as a user.
func sh(t *testing.T, uid, gid uint32, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as %d:%d: %s: %v: %s", uid, gid, script, err, out)
	}
}

func TestIDMapping(t *testing.T) {
	merged, upper, _ := peerUnion(t, "uidmapping=:0:1000:1:1:100000:65536,gidmapping=:0:2000:1:1:200000:65536", `
		dir . mode=0777
		file root "r"
		file user "u" owner=5:7
		file beyond "b" owner=70000:5
		dir d mode=0755`)

	wantOwner(t, "1000:2000", merged, "root")
	wantOwner(t, "100004:200006", merged, "user")
	wantOwner(t, "65534:200004", merged, "beyond") // in no range

	// What the kernel checks is what is shown, and what is made is translated back.
	sh(t, 1000, 2000, merged, "echo x >> root; echo y > new; mkdir d/sub; ln -s new link")
	sh(t, 100004, 200006, merged, "echo x >> user; chmod 600 user; test ! -w root")
	wantOwner(t, "1000:2000", merged, "new")
	for path, want := range map[string]string{"root": "0:0", "new": "0:0", "d": "0:0", "d/sub": "0:0", "link": "0:0", "user": "5:7"} {
		wantOwner(t, want, upper, path)
	}

	must(t, os.Lchown(merged+"/new", 100009, 200010))
	wantOwner(t, "10:11", upper, "new")
	wantOwner(t, "100009:200010", merged, "new")
	must(t, os.Lchown(merged+"/new", -1, 2000))
	wantOwner(t, "10:0", upper, "new")

	// The superuser of the host is in no range.
	must(t, os.WriteFile(merged+"/host", nil, 0o644))
	wantOwner(t, "65534:65534", upper, "host")
}

func TestIDMappingOfACLs(t *testing.T) {
	merged, upper, _ := peerUnion(t, "uidmapping=0:1000:100,gidmapping=0:2000:100", `file f "x"`)
	const name = "system.posix_acl_access"
	acl := func(user, group byte) string { // u::rw-,u:USER:r--,g::r--,g:GROUP:r--,m::r--,o::---
		none := "\xff\xff\xff\xff"
		return "\x02\x00\x00\x00" + "\x01\x00\x06\x00" + none +
			"\x02\x00\x04\x00" + string([]byte{user, 0, 0, 0}) + "\x04\x00\x04\x00" + none +
			"\x08\x00\x04\x00" + string([]byte{group, 0, 0, 0}) + "\x10\x00\x04\x00" + none + "\x20\x00\x00\x00" + none
	}
	shown := acl(0, 0)
	shown = strings.Replace(shown, "\x02\x00\x04\x00\x00\x00", "\x02\x00\x04\x00\xed\x03", 1) // 1005
	shown = strings.Replace(shown, "\x08\x00\x04\x00\x00\x00", "\x08\x00\x04\x00\xd6\x07", 1) // 2006
	must(t, unix.Setxattr(merged+"/f", name, []byte(shown), 0))
	if got, err := testfs.Getxattr(upper+"/f", name); err != nil || got != acl(5, 6) {
		t.Errorf("on disk: %q, %v, want %q", got, err, acl(5, 6))
	}
	if got, err := testfs.Getxattr(merged+"/f", name); err != nil || got != shown {
		t.Errorf("in the union: %q, %v, want %q", got, err, shown)
	}
	dir := filepath.Dir(merged)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chown(merged+"/f", 1000, 2000))
	sh(t, 1005, 1, merged, "cat f")
	sh(t, 1, 2006, merged, "cat f")
	sh(t, 1, 1, merged, "! cat f")
}

func TestSquash(t *testing.T) {
	for _, test := range []struct{ options, before, after, disk string }{
		{"squash_to_root", "0:0", "0:0", "3:3"},
		{"squash_to_uid=1000", "1000:7", "1000:3", "3:3"},
		{"squash_to_gid=1000", "5:1000", "3:1000", "3:3"},
		{"squash_to_root,squash_to_uid=9", "9:0", "9:0", "3:3"},
		{"squash_to_uid=9,uidmapping=0:3:9,gidmapping=0:3:9", "9:10", "9:3", "0:0"},
	} {
		merged, upper, _ := peerUnion(t, test.options, `file f "x" owner=5:7`)
		wantOwner(t, test.before, merged, "f")
		must(t, os.Lchown(merged+"/f", 3, 3))
		wantOwner(t, test.after, merged, "f")
		wantOwner(t, test.disk, upper, "f")
	}
}

func TestStaticNlink(t *testing.T) {
	nlink := func(path string) uint64 {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		return uint64(st.Nlink)
	}
	const lower = "dir d\ndir d/a\ndir d/b\nfile f \"x\"\nhardlink g -> f"
	merged, _, _ := peerUnion(t, "", lower)
	if n := nlink(merged + "/d"); n != 4 {
		t.Errorf("without static_nlink: %d links, want 4", n)
	}
	merged, _, _ = peerUnion(t, "static_nlink", lower)
	if n := nlink(merged + "/d"); n != 1 {
		t.Errorf("with static_nlink: %d links, want 1", n)
	}
	if n := nlink(merged + "/f"); n != 2 {
		t.Errorf("with static_nlink: a file has %d links, want 2", n)
	}
}

func TestNoACL(t *testing.T) {
	const acl = `\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff`
	merged, _, _ := peerUnion(t, "noacl", `file f "x" system.posix_acl_access="`+acl+`"`)
	const name = "system.posix_acl_access"
	if _, err := testfs.Getxattr(merged+"/f", name); err != unix.EOPNOTSUPP {
		t.Errorf("get: %v, want EOPNOTSUPP", err)
	}
	if err := unix.Setxattr(merged+"/f", name, []byte{2, 0, 0, 0}, 0); err != unix.EOPNOTSUPP {
		t.Errorf("set: %v, want EOPNOTSUPP", err)
	}
	if names, err := testfs.Listxattr(merged + "/f"); err != nil || len(names) > 0 {
		t.Errorf("list: %q, %v", names, err)
	}
	sh(t, 0, 0, merged, "umask 027; echo > new; test $(stat -c %a new) = 640")
}

func TestFsyncOff(t *testing.T) {
	merged, upper, spec := peerUnion(t, "fsync=0", `file f "x"`)
	sh(t, 0, 0, merged, "echo new > f; sync f; sync .")
	if got, err := os.ReadFile(upper + "/f"); err != nil || string(got) != "new\n" {
		t.Errorf("the upper has %q, %v", got, err)
	}
	if _, err := os.Stat(spec.Work + "/work/incompat"); err == nil {
		t.Error("marked as volatile")
	}
}

// A change behind the back of the union is seen as late as timeout= says.
func TestTimeout(t *testing.T) {
	for _, test := range []struct {
		options string
		seen    bool
	}{{"timeout=0", true}, {"timeout=3600", false}} {
		merged, _, spec := peerUnion(t, test.options, "dir d\nfile d/f mode=0644")
		must(t, unix.Access(merged+"/d/f", unix.F_OK))
		must(t, os.Chmod(spec.Lower[0]+"/d/f", 0o600))
		st, err := os.Stat(merged + "/d/f")
		must(t, err)
		if seen := st.Mode().Perm() == 0o600; seen != test.seen {
			t.Errorf("%s: the change is seen: %v, want %v", test.options, seen, test.seen)
		}
	}
}

// TestIDMappingOfCapabilities gives a program capabilities as root of a user namespace does, which the kernel writes with the
// root they count for: in the layers that is root, as in an image.
func TestIDMappingOfCapabilities(t *testing.T) {
	const name = "security.capability"
	const bits = "\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"                   // CAP_NET_BIND_SERVICE
	const ofRoot, ofOther = "\x01\x00\x00\x02" + bits, "\x01\x00\x00\x03" + bits + "\xa0\x86\x01\x00" // 100000
	merged, upper, spec := peerUnion(t, "uidmapping=0:100000:65536,gidmapping=0:100000:65536", `
		file lower "x"
		file f "x"`)
	must(t, unix.Setxattr(spec.Lower[0]+"/lower", name, []byte(ofRoot), 0))
	if got, err := testfs.Getxattr(merged+"/lower", name); err != nil || got != ofOther {
		t.Errorf("in the union: %q, %v, want %q", got, err, ofOther)
	}
	if n, err := unix.Lgetxattr(merged+"/lower", name, nil); err != nil || n != len(ofOther) {
		t.Errorf("size in the union: %d, %v", n, err)
	}
	must(t, unix.Setxattr(merged+"/f", name, []byte(ofOther), 0))
	if got, err := testfs.Getxattr(upper+"/f", name); err != nil || got != ofRoot {
		t.Errorf("on disk: %q, %v, want %q", got, err, ofRoot)
	}
	must(t, os.Chmod(merged+"/lower", 0o755)) // copied up
	if got, err := testfs.Getxattr(upper+"/lower", name); err != nil || got != ofRoot {
		t.Errorf("copied up: %q, %v, want %q", got, err, ofRoot)
	}
}
