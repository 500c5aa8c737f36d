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
