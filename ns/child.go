package ns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// execute does one step of a plan, in the namespaces of the container. root is the descriptor of its root mount.
func execute(o op, root int) error {
	switch o.Verb {
	case verbPrivate:
		return makePrivate()
	case verbAttach:
		return attach(root)
	case verbMkdir:
		return mkdir(root, string(o.Path), o.Mode)
	case verbMount:
		return mount(root, string(o.Path), o.FS, o.Options, o.Attr)
	case verbMknod:
		return mknod(root, string(o.Path), o.Mode, unix.Mkdev(o.Major, o.Minor))
	case verbSymlink:
		return symlink(root, string(o.Path), string(o.Target))
	case verbReadOnly:
		return makeReadOnly(root)
	case verbHostname:
		return unix.Sethostname([]byte(o.Target))
	case verbStdio:
		return reopenNull(root)
	case verbPivot:
		return pivot(root)
	case verbVerify:
		return verify(o.Mounts)
	case verbChdir:
		return chdir(string(o.Path))
	}
	return fmt.Errorf("unknown step %q", o.Verb)
}

// verify fails unless the mounts that can be reached from the root are on the mount points want, sorted. An old
// root that was not detached is seen as a second mount on "/", or as what is mounted on it.
func verify(want []raw) error {
	entries, err := mountinfo.Read()
	if err != nil {
		return err
	}
	var have []raw
	for _, e := range entries {
		have = append(have, raw(e.MountPoint))
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Errorf("mounted are %s, but should be %s", strings.Join(fromRaw(have), " "), strings.Join(fromRaw(want), " "))
	}
	return nil
}

// chdir changes the working directory to dir, which must be a place in the container: through a descriptor in
// /proc/self/fd it could be elsewhere.
func chdir(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return pathError("getcwd", dir, err)
	}
	if n == 0 || buf[0] != '/' { // "(unreachable)/…", see getcwd(2)
		return pathError("chdir", dir, errors.New("not in the container"))
	}
	return nil
}
