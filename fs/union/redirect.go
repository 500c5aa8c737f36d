package union

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// maxRedirect is how long a redirect may be, in bytes: what the kernel takes by default (its parameter redirect_max).
const maxRedirect = 256

// setRedirect notes on the upper object of n, which is about to be renamed, where its lower directories or its data are:
// by name if it stays in its directory, else by path. EXDEV if the path is too long to be noted. Like ovl_set_redirect.
//
// Precondition: FS.renameMu is held for writing.
func (fs *FS) setRedirect(n *node, sameDirectory bool) error {
	if !n.isDir() && n.data >= 0 && manyNames(int(n.data)) {
		sameDirectory = false // another name may be in another directory (ovl_need_absolute_redirect)
	}
	if old := n.redirect; old != "" && (sameDirectory || old[0] == '/') {
		return nil // it was renamed before, and what was noted then still holds
	}
	redirect := n.name
	if !sameDirectory {
		redirect = redirectPath(n)
	}
	if len(redirect) > maxRedirect {
		return unix.EXDEV
	}
	err := n.use(func(r layer.Ref) error { return r.Setxattr(fs.stack.Xattr.Redirect, []byte(redirect), 0) })
	if err != nil {
		return err
	}
	n.redirect = redirect
	return nil
}

// setLinkRedirect notes on the metacopy n, which is about to get one more name, where its data are, whatever the name
// (ovl_set_link_redirect).
func (fs *FS) setLinkRedirect(n *node) error {
	fs.renameMu.Lock()
	defer fs.renameMu.Unlock()
	if !n.meta.Load() {
		return nil
	}
	return fs.setRedirect(n, false)
}

// manyNames reports whether the open file fd has more names than one, or may have.
func manyNames(fd int) bool {
	var st unix.Stat_t
	return layer.RefFD(fd).Stat(&st) != nil || st.Nlink > 1
}

// redirectPath is the path at which the lower layers have what n is made of.
//
// Precondition: FS.renameMu is held.
func redirectPath(n *node) string {
	var parts []string
	for ; n.parent != nil; n = n.parent {
		name := n.name
		if r := n.redirect; r != "" {
			name = r
		}
		parts = append(parts, strings.TrimPrefix(name, "/"))
		if name[0] == '/' {
			break
		}
	}
	var path strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		path.WriteString("/" + parts[i])
	}
	return path.String()
}
