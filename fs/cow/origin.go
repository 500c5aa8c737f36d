package cow

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// Origins records in a copy which lower object it was made from, and finds that object again: the attribute
// overlay.origin, in the kernel's format (struct ovl_fb in fs/overlayfs/overlayfs.h):
//
//	version 0 | magic 0xfb | length | flags | handle type | file system's UUID, 16 bytes | handle
//
// Origins are best effort, as in the kernel: a file system without handles or UUID has none, and an origin that
// cannot be decoded is as good as none. What they buy is an inode number that stays the same over copy-up and mounts.
type Origins struct {
	lowers []lowerFS
}

// lowerFS is one file system that lower layers are on.
type lowerFS struct {
	dev   uint64
	fsid  int
	uuid  [16]byte
	mount int // a descriptor on it, that open_by_handle_at takes
}

const (
	fbHeader    = 21 // bytes before the handle
	fbMagic     = 0xfb
	fbBigEndian = 1 << 0
	fbAnyEndian = 1 << 1
	fbUpper     = 1 << 2 // of an object of the upper layer
)

// OpenOrigins finds out which lower file systems can have origins. Close it after use.
func OpenOrigins(stack *layer.Stack) *Origins {
	o := &Origins{}
	seen := map[uint64]bool{}
	for _, l := range stack.Lowers {
		if seen[l.Dev] {
			continue
		}
		seen[l.Dev] = true
		fd, err := l.Root.At(".").Open(unix.O_RDONLY | unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		uuid, err := sys.FSUUID(fd)
		if err != nil {
			unix.Close(fd)
			continue
		}
		o.lowers = append(o.lowers, lowerFS{dev: l.Dev, fsid: l.FSID, uuid: uuid, mount: fd})
	}
	return o
}

// Close releases what OpenOrigins took.
func (o *Origins) Close() {
	for _, l := range o.lowers {
		unix.Close(l.mount)
	}
}

// Record writes the origin of the copy dst. Objects that can have no such attribute, or whose source has no handle,
// get none, unless they must have one.
func (o *Origins) Record(dst layer.Ref, src Source, x layer.XattrNames, must bool) error {
	id, err := o.identify(src.Ref, src.Stat.Dev)
	if err != nil && !must {
		return nil
	}
	if err == nil {
		err = dst.Setxattr(x.Origin, id, 0)
	}
	if err == nil || !must && (err == unix.EOPNOTSUPP || err == unix.EPERM) { // EPERM: user.* on a link or special file
		return nil
	}
	return fmt.Errorf("record origin: %w", err)
}

// identify returns what an origin says of the lower object ref, which is on the device dev. EOPNOTSUPP if the file
// system has no handles, or no UUID.
func (o *Origins) identify(ref layer.Ref, dev uint64) ([]byte, error) {
	for _, l := range o.lowers {
		if l.dev == dev {
			return identify(ref, l.uuid, 0)
		}
	}
	return nil, unix.EOPNOTSUPP
}

// identify is ovl_encode_real_fh.
func identify(ref layer.Ref, uuid [16]byte, flags byte) ([]byte, error) {
	typ, handle, err := ref.Handle()
	if err != nil {
		return nil, err
	}
	if typ < 0 || typ > 0xff || fbHeader+len(handle) > 0xff {
		return nil, unix.EOPNOTSUPP
	}
	return encode(uuid, typ, handle, flags), nil
}

// A Lower is the object that an upper one was copied from.
type Lower struct {
	Stat unix.Stat_t
	FSID int // the index of its file system, as [layer.Layer.FSID]

	id []byte // the origin that says so
}

// Find returns the lower object that the upper object obj was copied from. ok is false if it has no origin, or one that is
// not among the layers any more.
func (o *Origins) Find(obj layer.Ref, x layer.XattrNames) (l Lower, ok bool) {
	if len(o.lowers) == 0 {
		return l, false
	}
	var buf [256]byte
	n, err := obj.GetxattrInto(x.Origin, buf[:])
	if err != nil {
		return l, false
	}
	l, err = o.look(append([]byte(nil), buf[:n]...))
	return l, err == nil
}

// look finds the lower object that an origin tells of. ESTALE if there is none, or no such origin.
func (o *Origins) look(id []byte) (found Lower, err error) {
	uuid, typ, handle, ok := decode(id)
	if !ok {
		return found, unix.ESTALE
	}
	for _, l := range o.lowers {
		if l.uuid != uuid {
			continue
		}
		fd, err := sys.OpenByHandle(l.mount, typ, handle)
		if err != nil {
			return found, err
		}
		defer unix.Close(fd)
		found.FSID, found.id = l.fsid, id
		err = layer.RefFD(fd).Stat(&found.Stat)
		if err == nil && found.Stat.Dev != l.dev {
			err = unix.ESTALE
		}
		return found, err
	}
	return found, unix.ESTALE
}

func encode(uuid [16]byte, typ int32, handle []byte, flags byte) []byte {
	var b bytes.Buffer
	b.Write([]byte{0, fbMagic, byte(fbHeader + len(handle)), endianness() | flags, byte(typ)})
	b.Write(uuid[:])
	b.Write(handle)
	return b.Bytes()
}

// decode is the inverse of encode; like ovl_check_fb_len and ovl_get_fh it refuses what this machine did not write.
func decode(b []byte) (uuid [16]byte, typ int32, handle []byte, ok bool) {
	if len(b) < fbHeader || b[0] != 0 || b[1] != fbMagic || int(b[2]) != len(b) {
		return uuid, 0, nil, false
	}
	flags := b[3]
	if flags&fbAnyEndian == 0 && flags&fbBigEndian != endianness() {
		return uuid, 0, nil, false
	}
	copy(uuid[:], b[5:])
	return uuid, int32(b[4]), b[fbHeader:], true
}

func endianness() byte {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return fbBigEndian
	}
	return 0
}
