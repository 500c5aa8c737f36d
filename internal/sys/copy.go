package sys

import (
	"golang.org/x/sys/unix"
)

// CopyMethod says how CopyData moved the bytes.
type CopyMethod string

const (
	CopyNone    CopyMethod = "none"    // there was nothing to copy
	CopyReflink CopyMethod = "reflink" // the file system shares the blocks (FICLONE)
	CopyRange   CopyMethod = "range"   // copy_file_range(2), by extents
	CopyBuffer  CopyMethod = "buffer"  // read and write, by extents
)

// copyChunk bounds one system call of CopyData, in bytes, and so how late it sees a cancellation. The kernel's
// copy-up uses the same size (OVL_COPY_UP_CHUNK_SIZE).
const copyChunk = 1 << 20

// CopyData copies the first size bytes of src to the empty regular file dst, keeping holes: shares the blocks
// where the file system can, else copies extent by extent. It fails with EINTR once cancelled, which may be
// nil, is true.
func CopyData(dst, src int, size int64, cancelled func() bool) (CopyMethod, error) {
	if size == 0 {
		return CopyNone, nil
	}
	if Clone(dst, src) {
		return CopyReflink, nil
	}
	if err := Ftruncate(dst, size); err != nil { // a hole at the end stays one
		return CopyNone, err
	}
	c := copier{dst: dst, src: src, cancelled: cancelled, method: CopyNone}
	for off := int64(0); off < size; {
		data, err := seek(src, off, unix.SEEK_DATA)
		if err == unix.ENXIO { // only a hole is left
			break
		}
		hole := size
		if err != nil { // the file system knows no holes: one extent
			data = off
		} else if hole, err = seek(src, data, unix.SEEK_HOLE); err != nil || hole > size {
			hole = size
		}
		if data >= size {
			break
		}
		if err := c.extent(data, hole); err != nil {
			return c.method, err
		}
		off = hole
	}
	return c.method, nil
}

// Clone makes the file dst share the blocks of src (FICLONE), and reports whether it does: not all file systems can.
func Clone(dst, src int) bool {
	return try("ioctl", func() error { return unix.IoctlFileClone(dst, src) }) == nil
}

// FileFlags is FS_IOC_GETFLAGS, what lsattr(1) shows.
func FileFlags(fd int) (flags uint32, err error) {
	return try1("ioctl", func() (uint32, error) { return unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS) })
}

// SetFileFlags is FS_IOC_SETFLAGS, what chattr(1) does.
func SetFileFlags(fd int, flags uint32) error {
	return try("ioctl", func() error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags)) })
}

type copier struct {
	dst, src  int
	cancelled func() bool
	method    CopyMethod
	buf       []byte // non-nil once copy_file_range turned out not to work between these files
}

// extent copies the bytes [off, end).
func (c *copier) extent(off, end int64) error {
	for off < end {
		if c.cancelled != nil && c.cancelled() {
			return unix.EINTR
		}
		n, err := c.chunk(off, int(min(copyChunk, end-off)))
		if err == unix.EINTR {
			continue // a signal of the Go runtime, not a cancellation
		}
		if err != nil {
			return err
		}
		if n == 0 { // the source was truncated meanwhile; the rest reads as zeros
			return nil
		}
		off += int64(n)
	}
	return nil
}

func (c *copier) chunk(off int64, n int) (int, error) {
	if c.buf == nil {
		in, out := off, off
		got, err := try1("copy_file_range", func() (int, error) {
			return unix.CopyFileRange(c.src, &in, c.dst, &out, n, 0)
		})
		switch err {
		case nil:
			c.method = CopyRange
			return got, nil
		case unix.EXDEV, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM:
			c.buf = make([]byte, copyChunk)
		default:
			return 0, err
		}
	}
	c.method = CopyBuffer
	got, err := try1("pread", func() (int, error) { return unix.Pread(c.src, c.buf[:n], off) })
	if err != nil {
		return 0, err
	}
	return got, PwriteAll(c.dst, c.buf[:got], off)
}

func seek(fd int, off int64, whence int) (int64, error) {
	return try1("lseek", func() (int64, error) { return unix.Seek(fd, off, whence) })
}
