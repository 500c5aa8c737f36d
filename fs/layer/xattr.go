package layer

import "strings"

// XattrNames are the names of overlayfs's own attributes in one union: trusted.overlay.* or, with userxattr,
// user.overlay.* (fs/overlayfs/overlayfs.h, enum ovl_xattr).
type XattrNames struct {
	prefix string // "trusted.overlay." or "user.overlay."

	Opaque   string // y: hides what is below; x: the directory may hold xattr whiteouts
	Whiteout string // on an empty regular file in an opaque=x directory: the file is a whiteout
	Origin   string // file handle of the lower object that this one was copied up from
	Impure   string // y: the directory may hold objects with an origin
	Redirect string // where the lower directories of a renamed directory are
	Metacopy string // the file has its metadata in this layer and its data in a lower one
	Nlink    string // how many names an indexed file has in the union, see package cow
	ProtAttr string // how the file is protected: a, i or both, see package cow
	Upper    string // file handle of the upper root that an index belongs to
}

// NewXattrNames returns user.overlay.* if user is true, else trusted.overlay.*.
func NewXattrNames(user bool) XattrNames {
	prefix := "trusted.overlay."
	if user {
		prefix = "user.overlay."
	}
	return XattrNames{
		prefix:   prefix,
		Opaque:   prefix + "opaque",
		Whiteout: prefix + "whiteout",
		Origin:   prefix + "origin",
		Impure:   prefix + "impure",
		Redirect: prefix + "redirect",
		Metacopy: prefix + "metacopy",
		Nlink:    prefix + "nlink",
		ProtAttr: prefix + "protattr",
		Upper:    prefix + "upper",
	}
}

// User reports whether the names are user.overlay.*, which any owner of a file may write.
func (x XattrNames) User() bool { return strings.HasPrefix(x.prefix, "user.") }

// escape is what stands behind the prefix in the names that belong to the user of a union: a union that is itself
// a layer of another one keeps its marks there.
const escape = "overlay."

// Private reports whether the attribute name on disk is one of the union's own, which its users do not see. An
// escaped one is the user's (ovl_is_private_xattr).
func (x XattrNames) Private(disk string) bool {
	rest, ours := strings.CutPrefix(disk, x.prefix)
	return ours && !strings.HasPrefix(rest, escape)
}

// ToDisk is the name under which the attribute that a user calls name is kept: a user's trusted.overlay.X is
// trusted.overlay.overlay.X on disk (ovl_xattr_escape_name).
func (x XattrNames) ToDisk(name string) string {
	if rest, ours := strings.CutPrefix(name, x.prefix); ours {
		return x.prefix + escape + rest
	}
	return name
}

// FromDisk is the inverse of ToDisk for names that are not Private.
func (x XattrNames) FromDisk(disk string) string {
	if rest, escaped := strings.CutPrefix(disk, x.prefix+escape); escaped {
		return x.prefix + rest
	}
	return disk
}
