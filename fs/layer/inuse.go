package layer

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// checkOverlays refuses an upper layer or work directory that an overlay in this mount namespace, other than prev, has
// already. The
// locks tell of unions with a living process, not of this one: the kernel serves it by itself, and lets two mounts
// write to one upper layer with no more than a warning in its log (ovl_report_in_use).
func (w *Work) checkOverlays(upper *Layer, prev *Previous) error {
	mounts, err := mountinfo.Read()
	if err != nil {
		return err
	}
	used := make(map[[2]uint64]string) // (device, inode) to mount point
	for _, m := range mounts {
		if m.FSType != "overlay" || prev != nil && m.Device() == prev.Dev {
			continue
		}
		for _, path := range writableDirs(m.Options) {
			if strings.HasPrefix(path, "/proc/self/") { // of the process that mounted it
				continue
			}
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil { // else named relative to some other root or directory
				used[[2]uint64{st.Dev, st.Ino}] = m.MountPoint
			}
		}
	}
	for _, c := range []struct {
		what string
		dir  *Dir
	}{{"upper layer", upper.Root}, {"work directory", w.base}} {
		var st unix.Stat_t
		if err := c.dir.Self().Stat(&st); err != nil {
			return fmt.Errorf("stat %q: %w", c.dir.layer.Path, err)
		}
		if mountPoint, is := used[[2]uint64{st.Dev, st.Ino}]; is {
			return fmt.Errorf("%s %q is in use by the overlay on %q: unmount that first, or name another directory", c.what, c.dir.layer.Path, mountPoint)
		}
	}
	return nil
}

// writableDirs returns the upper and work directories in the options of an overlay, as mountinfo has them. Given to
// the kernel as text they are shown with the backslashes that protected them there, given as descriptors without:
// where there are any, both readings are returned.
func writableDirs(options string) []string {
	var paths []string
	for _, option := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		if name != "upperdir" && name != "workdir" {
			continue
		}
		path := mountinfo.Unescape(value)
		paths = append(paths, path)
		if bare, err := unescape(name, path); err == nil && bare != path {
			paths = append(paths, bare)
		}
	}
	return paths
}
