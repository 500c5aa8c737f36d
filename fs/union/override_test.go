package union_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

const overrideAttr = "user.containers.override_stat"

func wantOverride(t *testing.T, want, path string) {
	t.Helper()
	if got, err := testfs.Getxattr(path, overrideAttr); err != nil || got != want {
		t.Errorf("%s: %q, %v, want %q", path, got, err, want)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	if st.Uid != 0 || st.Gid != 0 || st.Mode&0o700 != 0o700 || st.Mode&0o7000 != 0 {
		t.Errorf("%s is really %d:%d %o", path, st.Uid, st.Gid, st.Mode)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		t.Errorf("%s is really of type %o", path, kind)
	}
}

func wantStat(t *testing.T, path, owners string, mode uint32) unix.Stat_t {
	t.Helper()
	wantOwner(t, owners, path)
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	if st.Mode != mode {
		t.Errorf("%s has mode %o, want %o", path, st.Mode, mode)
	}
	return st
}

// Layers as containers/storage unpacks them where it may not chown or mknod.
const overridden = `
	dir . user.containers.override_stat="0:0:755" mode=0777
	file f "f" user.containers.override_stat="5:7:4711" mode=0755
	file null user.containers.override_stat="0:0:666:char-1-3" mode=0755
	dir d user.containers.override_stat="5:7:3775" mode=0755
	file d/g user.containers.override_stat="5:7:600:file" mode=0755
	file caps user.containers.override_stat="0:0:755" user.containers.override_security.capability="` + caps + `" mode=0755
	symlink s -> f
	file plain mode=0640 owner=3:4`

// cap_net_raw=ep
const caps = `\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00`

func TestOverrideIsRead(t *testing.T) {
	merged, _, _ := peerUnion(t, "xattr_permissions=2", overridden)
	wantStat(t, merged+"/f", "5:7", unix.S_IFREG|0o4711)
	wantStat(t, merged+"/d", "5:7", unix.S_IFDIR|0o3775)
	wantStat(t, merged+"/d/g", "5:7", unix.S_IFREG|0o600)
	wantStat(t, merged+"/plain", "3:4", unix.S_IFREG|0o640)
	null := wantStat(t, merged+"/null", "0:0", unix.S_IFCHR|0o666)
	if null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null has rdev %x", null.Rdev)
	}
	if got, err := os.ReadFile(merged + "/null"); err != nil || len(got) > 0 {
		t.Errorf("read the device: %q, %v", got, err)
	}
	for _, e := range must1(os.ReadDir(merged))(t) {
		if e.Name() == "null" && e.Type() != os.ModeDevice|os.ModeCharDevice {
			t.Errorf("null is listed as %v", e.Type())
		}
	}
	if names, err := testfs.Listxattr(merged + "/f"); err != nil || len(names) > 0 {
		t.Errorf("attributes of f: %q, %v", names, err)
	}
	if _, err := testfs.Getxattr(merged+"/f", overrideAttr); err != unix.ENODATA {
		t.Errorf("get: %v, want ENODATA", err)
	}
	for _, attr := range []string{overrideAttr, "user.containers.override_security.capability"} {
		if err := unix.Setxattr(merged+"/f", attr, []byte("0:0:6777"), 0); err != unix.EPERM {
			t.Errorf("set %s: %v, want EPERM", attr, err)
		}
		if err := unix.Removexattr(merged+"/f", attr); err != unix.EPERM {
			t.Errorf("remove %s: %v, want EPERM", attr, err)
		}
	}
	if got, err := testfs.Getxattr(merged+"/caps", "security.capability"); err != nil || len(got) != 20 {
		t.Errorf("capabilities: %q, %v", got, err)
	}

	// A layer whose root has no such attribute, and a union without the option, are as they are.
	merged, _, _ = peerUnion(t, "xattr_permissions=2", strings.Replace(overridden, "dir . user.containers.override_stat=\"0:0:755\"", "dir .", 1))
	wantStat(t, merged+"/f", "0:0", unix.S_IFREG|0o755)
	merged, _, _ = peerUnion(t, "", overridden)
	wantStat(t, merged+"/f", "0:0", unix.S_IFREG|0o755)
}

func must1[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func TestOverrideIsWritten(t *testing.T) {
	merged, upper, spec := peerUnion(t, "xattr_permissions=2", overridden)
	must(t, os.Chmod(merged, 0o777))
	sh(t, 1000, 1000, merged, `
		umask 027
		echo new > new; mkdir dir; ln -s new link; mkfifo pipe; echo x > gone; rm gone; mkdir gone; echo y > gone/y
		chmod 4755 new; test ! -r d/g`)
	sh(t, 9, 7, merged, "echo z > d/z; mkdir d/sub")
	must(t, unix.Mknod(merged+"/dev", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 3))))
	fd := must1(unix.Open(merged, unix.O_TMPFILE|unix.O_RDWR, 0o604))(t)
	must(t, unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, merged+"/tmpfile", unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Close(fd))

	for path, want := range map[string]string{
		"new": "1000:1000:4755", "dir": "1000:1000:750", "pipe": "1000:1000:640:pipe", "gone": "1000:1000:750",
		"d/z": "9:7:644", "d/sub": "9:7:2755", "dev": "0:0:600:block-8-3", "tmpfile": "0:0:604", ".": "0:0:777",
		"d": "5:7:3775", // copied up
	} {
		wantOverride(t, want, upper+"/"+path)
	}
	wantStat(t, merged+"/pipe", "1000:1000", unix.S_IFIFO|0o640)
	wantStat(t, merged+"/dev", "0:0", unix.S_IFBLK|0o600)

	// Copy-up, changes of owner and mode, and what they clear.
	must(t, os.Chmod(merged+"/null", 0o600))
	wantOverride(t, "0:0:600:char-1-3", upper+"/null")
	must(t, os.Lchown(merged+"/f", 8, -1))
	wantOverride(t, "8:7:711", upper+"/f")
	must(t, unix.Chmod(merged+"/plain", 0o4755))
	wantOverride(t, "3:4:4755", upper+"/plain")
	must(t, unix.Chmod(merged+"/plain", 0o6777))
	sh(t, 1000, 1000, merged, "echo x >> plain")
	wantOverride(t, "3:4:777", upper+"/plain")
	must(t, os.Chmod(merged+"/caps", 0o700))
	if got, err := testfs.Getxattr(merged+"/caps", "security.capability"); err != nil || len(got) != 20 {
		t.Errorf("capabilities after the copy-up: %q, %v", got, err)
	}
	must(t, os.WriteFile(merged+"/caps", []byte("changed"), 0))
	if _, err := testfs.Getxattr(merged+"/caps", "security.capability"); err != unix.ENODATA {
		t.Errorf("capabilities after a write: %v, want ENODATA", err)
	}
	must(t, unix.Setxattr(merged+"/new", "security.capability", must1(bytesOf(caps))(t), 0))
	if _, err := testfs.Getxattr(upper+"/new", "user.containers.override_security.capability"); err != nil {
		t.Errorf("capabilities on disk: %v", err)
	}
	must(t, os.Lchown(merged+"/new", 1, 1))
	wantOverride(t, "1:1:755", upper+"/new")
	if names, err := testfs.Listxattr(merged + "/new"); err != nil || len(names) > 0 {
		t.Errorf("attributes of new after chown: %q, %v", names, err)
	}
	if err := unix.Setxattr(merged+"/new", "system.posix_acl_access", []byte{2, 0, 0, 0}, 0); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("ACL: %v, want EOPNOTSUPP", err)
	}
	wantNames(t, "", spec.Work, "work")
}

func TestOverridePrivileged(t *testing.T) {
	merged, upper, _ := peerUnion(t, "xattr_permissions=1", `file f mode=0640 owner=5:7`)
	must(t, os.Chmod(merged+"/f", 0o600))
	if got, err := testfs.Getxattr(upper+"/f", "security.fuseoverlayfs.override_stat"); err != nil || got != "5:7:600" {
		t.Errorf("on disk: %q, %v", got, err)
	}
	must(t, os.Symlink("f", merged+"/s"))
	must(t, os.Lchown(merged+"/s", 3, 4))
	wantOwner(t, "3:4", merged, "s")
	wantOwner(t, "0:0", upper, "s")
}

// Attributes that are no text of ours are an error, not an owner.
func TestOverrideIsBroken(t *testing.T) {
	merged, _, _ := peerUnion(t, "xattr_permissions=2", `
		dir . user.containers.override_stat="0:0:755"
		file bad user.containers.override_stat="root:root:644"
		file good user.containers.override_stat="1:1:644"`)
	if _, err := os.Lstat(merged + "/bad"); !errors.Is(err, unix.EIO) {
		t.Errorf("bad: %v, want EIO", err)
	}
	wantOwner(t, "1:1", merged, "good")
}

// bytesOf reads the escapes of testfs.
func bytesOf(escaped string) ([]byte, error) {
	text, err := strconv.Unquote(`"` + escaped + `"`)
	return []byte(text), err
}
