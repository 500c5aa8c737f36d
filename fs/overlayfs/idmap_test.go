package overlayfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestMapIDs makes a union whose layers have ids from 0 on, and whose users have others.
func TestMapIDs(t *testing.T) {
	testfs.NeedRoot(t)
	dirs := testfs.Layers(t, 3)
	testfs.Write(t, dirs[0], `
		dir . mode=0755
		file root "r"
		file user "u" owner=5:7
		file gone "g"
		file beyond "b" owner=70000:5`)
	spec := layer.Spec{Lower: dirs[:1], Upper: dirs[1], Work: dirs[2]}
	spec.Options.FUSE.Owners.UID = layer.IDMap{{Disk: 0, Shown: 100000, Count: 65536}}
	spec.Options.FUSE.Owners.GID = layer.IDMap{{Disk: 0, Shown: 200000, Count: 65536}}
	if _, err := (Backend{}).Open(context.Background(), spec); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without MapIDs: %v", err)
	}
	v, err := Backend{MapIDs: true}.Open(context.Background(), spec)
	if errors.Is(err, errors.ErrUnsupported) {
		testfs.Skip(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	merged := testfs.TempDir(t)
	if err := v.Attach(merged); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(merged, 0)

	want := func(owner, path string) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || fmt.Sprintf("%d:%d", st.Uid, st.Gid) != owner {
			t.Errorf("owner of %s is %d:%d (%v), want %s", path, st.Uid, st.Gid, err, owner)
		}
	}
	want("100000:200000", merged)
	want("100000:200000", merged+"/root")
	want("100005:200007", merged+"/user")
	want("65534:200005", merged+"/beyond")

	cmd := exec.Command("sh", "-euc", "echo x >>root; echo y >new; mkdir dir; rm gone; ln -s new link; ln root hard; mv user dir")
	cmd.Dir = merged
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 100000, Gid: 200000}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for path, owner := range map[string]string{"root": "0:0", "new": "0:0", "dir": "0:0", "gone": "0:0", "link": "0:0", "dir/user": "5:7"} {
		want(owner, dirs[1]+"/"+path)
	}
	if err := os.Lchown(merged+"/new", 100009, 200010); err != nil {
		t.Fatal(err)
	}
	want("9:10", dirs[1]+"/new")
	if err := os.WriteFile(merged+"/host", nil, 0o644); !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("a file of nobody's: %v", err)
	}
}
