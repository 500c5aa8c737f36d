package union

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// owners translates between the ids that are in the layers and those that users see. An id that is in no range of a
// map is the overflow id on the other side (find_mapping of fuse-overlayfs).
type owners struct {
	layer.Owners
	overflowUID, overflowGID uint32
}

func newOwners(o layer.Owners) owners {
	return owners{Owners: o, overflowUID: overflowID("overflowuid"), overflowGID: overflowID("overflowgid")}
}

// overflowID is what the kernel shows for an id that a user namespace does not map (proc_sys_kernel(5)).
func overflowID(name string) uint32 {
	const usual = 65534
	text, err := os.ReadFile("/proc/sys/kernel/" + name)
	if err != nil {
		return usual
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return usual
	}
	return uint32(id)
}

// shown is how users see the owner and the group of a file.
func (o *owners) shown(uid, gid uint32) (uint32, uint32) {
	return shownID(uid, o.UID, o.squashes(o.SquashUID), o.overflowUID), shownID(gid, o.GID, o.squashes(o.SquashGID), o.overflowGID)
}

func (o *owners) squashes(s layer.Squash) layer.Squash {
	if !s.On {
		s.On = o.SquashToRoot
	}
	return s
}

func shownID(disk uint32, m layer.IDMap, squash layer.Squash, overflow uint32) uint32 {
	if squash.On {
		return squash.ID
	}
	return orOverflow(overflow)(m.Shown(disk))
}

// stored is the owner and the group in a layer of what is uid's and gid's for users. What leaves one as it is, for
// chown(2), stays that. What is squashed is not known any more, and taken as it comes.
func (o *owners) stored(uid, gid uint32) (uint32, uint32) {
	const leave = ^uint32(0)
	if uid != leave {
		uid = orOverflow(o.overflowUID)(o.UID.Stored(uid))
	}
	if gid != leave {
		gid = orOverflow(o.overflowGID)(o.GID.Stored(gid))
	}
	return uid, gid
}

func orOverflow(overflow uint32) func(id uint32, mapped bool) uint32 {
	return func(id uint32, mapped bool) uint32 {
		if mapped {
			return id
		}
		return overflow
	}
}

// as runs f as the caller of a request, who is another one in the layers if ids are mapped.
func (fs *FS) as(caller *fuse.InHeader, umask uint32, f func() error) error {
	uid, gid := fs.owners.stored(caller.Uid, caller.Gid)
	return sys.As(uid, gid, umask, f)
}

// isACL reports whether the attribute is a POSIX ACL (acl(5)).
func isACL(attr string) bool {
	return attr == "system.posix_acl_access" || attr == "system.posix_acl_default"
}

// showACL translates the ids in an ACL, in place, for users to see.
func (o *owners) showACL(acl []byte) { o.eachACLEntry(acl, layer.IDMap.Shown) }

// storeACL is the inverse of showACL.
func (o *owners) storeACL(acl []byte) { o.eachACLEntry(acl, layer.IDMap.Stored) }

// eachACLEntry walks over the value of an ACL attribute: a version of four bytes, and entries of eight (struct
// posix_acl_xattr_entry in linux/posix_acl_xattr.h). What is not one is left to those who read it.
func (o *owners) eachACLEntry(acl []byte, translate func(layer.IDMap, uint32) (uint32, bool)) {
	const (
		version, entry = 4, 8
		user, group    = 0x02, 0x08 // ACL_USER, ACL_GROUP: the only ones with an id
	)
	if len(acl) < version {
		return
	}
	for e := acl[version:]; len(e) >= entry; e = e[entry:] {
		id := binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e) {
		case user:
			id = orOverflow(o.overflowUID)(translate(o.UID, id))
		case group:
			id = orOverflow(o.overflowGID)(translate(o.GID, id))
		}
		binary.LittleEndian.PutUint32(e[4:], id)
	}
}

// The two forms of file capabilities, struct vfs_cap_data and vfs_ns_cap_data of linux/capability.h: the second tells the
// root of the user namespace in which they count, the first says that this is uid 0 of the file system.
const (
	capsV2, capsV3         = 0x02000000, 0x03000000 // in the first four bytes, little-endian
	capsV2Size, capsV3Size = 20, 24
	capsRevision           = 0xff000000
)

// getCaps is getxattr of file capabilities for users to see.
func (o *owners) getCaps(r layer.Ref, disk string, dest []byte) (int, error) {
	var value [capsV3Size]byte
	n, err := r.GetxattrInto(disk, value[:])
	if err != nil {
		return n, err
	}
	shown := o.translateCaps(value[:n], layer.IDMap.Shown)
	if len(dest) > 0 && copy(dest, shown) < len(shown) {
		err = unix.ERANGE
	}
	return len(shown), err
}

// storeCaps translates the ids of users in file capabilities into those of the layers.
func (o *owners) storeCaps(value []byte) []byte { return o.translateCaps(value, layer.IDMap.Stored) }

// translateCaps tells the capabilities with another id of root. What is in no range, or no capabilities, stays.
func (o *owners) translateCaps(value []byte, translate func(layer.IDMap, uint32) (uint32, bool)) []byte {
	if len(value) < capsV2Size {
		return value
	}
	word := binary.LittleEndian.Uint32(value)
	root := uint32(0)
	switch revision := word & capsRevision; {
	case revision == capsV2 && len(value) == capsV2Size:
	case revision == capsV3 && len(value) == capsV3Size:
		root = binary.LittleEndian.Uint32(value[capsV2Size:])
	default:
		return value
	}
	root, mapped := translate(o.UID, root)
	if !mapped {
		return value
	}
	out := make([]byte, 0, capsV3Size)
	if root == 0 {
		out = binary.LittleEndian.AppendUint32(out, word&^capsRevision|capsV2)
		return append(out, value[4:capsV2Size]...)
	}
	out = binary.LittleEndian.AppendUint32(out, word&^capsRevision|capsV3)
	out = append(out, value[4:capsV2Size]...)
	return binary.LittleEndian.AppendUint32(out, root)
}
