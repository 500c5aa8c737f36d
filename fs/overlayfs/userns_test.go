package overlayfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/mountinfo"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// cloned runs another function of this file in new namespaces: it takes the flags of clone(2), the name of the
// function and its arguments.
var cloned = testfs.NewFunc("overlayfs-cloned", func(args []string, in *bufio.Reader, out io.Writer) error {
	flags, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", args[2:]...)
	cmd.Env = append(os.Environ(), "UNIONFS_TEST_CHILD="+args[1])
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "lifeline")} // what ends us ends it
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  uintptr(flags),
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run()
})

// overlayfs-rootless makes a union as root of a user namespace, changes it, and prints its options.
var _ = testfs.NewFunc("overlayfs-rootless", func(args []string, in *bufio.Reader, out io.Writer) error {
	f, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b, target := Backend{form: form(f)}, args[4]
	spec := layer.Spec{Lower: []string{args[1]}, Upper: args[2], Work: args[3]}
	if err := b.Supports(context.Background(), spec); err != nil {
		return fmt.Errorf("supports: %w", err)
	}
	v, err := b.Open(context.Background(), spec)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.Attach(target); err != nil {
		return err
	}
	for _, err := range []error{
		os.RemoveAll(target + "/d"),
		os.Mkdir(target+"/d", 0o755),
		os.Remove(target + "/gone"),
	} {
		if err != nil {
			return err
		}
	}
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	m, _ := mountinfo.Top(mounts, target)
	fmt.Fprint(out, m.Options)
	return unix.Unmount(target, 0)
})

// overlayfs-unprivileged prints what Supports and Open say.
var _ = testfs.NewFunc("overlayfs-unprivileged", func(args []string, in *bufio.Reader, out io.Writer) error {
	spec := layer.Spec{Lower: args}
	for _, err := range []error{
		Backend{}.Supports(context.Background(), spec),
		func() error { _, err := Backend{}.Open(context.Background(), spec); return err }(),
	} {
		fmt.Fprintln(out, errors.Is(err, errors.ErrUnsupported), err)
	}
	return nil
})

func needUserNS(t *testing.T) {
	t.Helper()
	needOverlay(t)
	max, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil || strings.TrimSpace(string(max)) == "0" {
		testfs.Skip(t, "no user namespaces (user.max_user_namespaces is %q, %v)", max, err)
	}
}

func TestUserNamespace(t *testing.T) {
	needUserNS(t)
	eachForm(t, func(t *testing.T, b Backend) {
		spec := newSpec(t, "dir d\nfile d/hidden\nfile gone")
		out, err := cloned.Run(t, time.Minute, strconv.Itoa(unix.CLONE_NEWUSER|unix.CLONE_NEWNS), "overlayfs-rootless",
			strconv.Itoa(int(b.form)), spec.Lower[0], spec.Upper, spec.Work, testfs.TempDir(t))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "userxattr") {
			t.Errorf("options %s: no userxattr", out)
		}
		value := make([]byte, 8)
		n, err := unix.Getxattr(spec.Upper+"/d", "user.overlay.opaque", value)
		if err != nil || string(value[:n]) != "y" {
			t.Errorf("user.overlay.opaque of the new directory: %q, %v; want y", value[:max(n, 0)], err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(spec.Upper+"/gone", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("no whiteout in the upper layer: mode %#o, rdev %d, %v", st.Mode, st.Rdev, err)
		}
	})
}

func TestNoPrivilege(t *testing.T) {
	needUserNS(t)
	lower := testfs.Layers(t, 1)[0]
	// Root of a user namespace, but in the mount namespace of another one.
	out, err := cloned.Run(t, time.Minute, strconv.Itoa(unix.CLONE_NEWUSER), "overlayfs-unprivileged", lower)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("Supports and Open said %q", out)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "true no privilege to mount overlay: run as root") {
			t.Errorf("unsupported and why: %s", line)
		}
	}
}

// What mount(2) makes on the way is not seen, by this process nor by any that shares its mounts.
func TestPrivateNamespace(t *testing.T) {
	needOverlay(t)
	read := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// Make sure that mounts would spread if they could.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		testfs.Skip(t, "make mounts shared: %v", err)
	}
	t.Cleanup(func() { _ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") })
	before := read()
	open(t, Backend{form: byText}, newSpec(t, `file f "1"`))
	if now := read(); now != before {
		t.Errorf("the mounts of this process changed:\n%s\n%s", before, now)
	}
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	err = inPrivateNamespace(func() error {
		if unix.Gettid() == os.Getpid() {
			return errors.New("it is the first thread, which cannot end")
		}
		own, err := os.Readlink("/proc/thread-self/ns/mnt")
		if err == nil && own == ns {
			err = errors.New("the mount namespace is that of the process")
		}
		return err
	})
	if err != nil {
		t.Errorf("in a private namespace: %v", err)
	}
	if now, _ := os.Readlink("/proc/self/ns/mnt"); now != ns {
		t.Errorf("the mount namespace of the process changed from %s to %s", ns, now)
	}
}
