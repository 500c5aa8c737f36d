package ns

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// sealedSelf opens the binary of this process for execution in a container, which then cannot change it: who gets at
// the executable of a process of the host through /proc/PID/exe, or makes the kernel run it by "#!/proc/self/exe", could
// else write to it what root of the host runs the next time (CVE-2019-5736).
//
// It lies on an overlay that has no upper layer, so not even somebody who may mount can make it writable, and it costs
// next to nothing: the pages are those of the binary. Where no such overlay can be had, or the binary is to be executed
// by others and is not for them, it is copied into memory.
func sealedSelf(others bool) (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	if st, err := self.Stat(); err != nil {
		return nil, err
	} else if others && st.Mode()&0o001 == 0 {
		return sealByCopy(self)
	}
	if sealed, err := sealByOverlay(self); err == nil {
		return sealed, nil
	}
	return sealByCopy(self)
}

func sealByOverlay(self *os.File) (*os.File, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	empty, err := sys.NewMount("tmpfs", nil, 0) // an overlay without upper layer has two lower ones
	if err != nil {
		return nil, err
	}
	defer unix.Close(empty)
	layers := fmt.Sprintf("lowerdir=%s:%s", sys.ProcPath(dir, ""), sys.ProcPath(empty, ""))
	mnt, err := sys.NewMount("overlay", []string{layers}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mnt)
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(mnt, filepath.Base(path), &how)
	if err != nil {
		return nil, err
	}
	sealed := os.NewFile(uintptr(fd), "sealed")
	// What is at the path may be a newer version by now, or another file.
	if same, err := sameContent(self, sealed); err != nil || !same {
		sealed.Close()
		return nil, fmt.Errorf("%s is another file: %w", path, err)
	}
	return sealed, nil
}

// sameContent compares what an overlay passes on from a file of its lower layer.
func sameContent(a, b *os.File) (bool, error) {
	var x, y unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_MTIME | unix.STATX_CTIME
	for f, st := range map[*os.File]*unix.Statx_t{a: &x, b: &y} {
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, mask, st); err != nil {
			return false, err
		}
	}
	return x.Ino == y.Ino && x.Size == y.Size && x.Mtime == y.Mtime && x.Ctime == y.Ctime, nil
}

func sealByCopy(self *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate("unionfsd", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	sealed := os.NewFile(uintptr(fd), "sealed")
	if _, err := io.Copy(sealed, self); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("copy the binary: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		sealed.Close()
		return nil, fmt.Errorf("seal the copy: %w", err)
	}
	// Opened again: what is open for writing cannot be executed (ETXTBSY).
	defer sealed.Close()
	return os.Open(sys.ProcPath(fd, ""))
}
