package cow

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/sys"
)

// A lazy copy has everything but its data when it is published: the size, a hole, and a mark. What is written goes into
// it, by whole blocks; a block that is written in part is completed from the lower file first. So the blocks that the file
// system has allocated are those that are copied, and nothing else needs to be written in order: after a crash a block is
// there with what it should have, or is not there, and the lower file has it. The rest is filled in by and by; then the
// data are synced, and only then the mark goes.
//
// There are two marks, so that the kernel refuses the file in every mode. overlay.metacopy, with a value of our own, makes
// it EPERM without metacopy=on. With metacopy=on the kernel does not look at the value (Linux 6.18, without verity), and
// would take all data from the lower file, but for an overlay.redirect that is none: EINVAL (ovl_get_redirect_xattr).

const (
	lazyVersion = 0xfe // of struct ovl_metacopy; the kernel's is 0
	lazyMarkLen = 4 + 3*8

	// lazyRedirect is invalid: a relative redirect is a single name.
	lazyRedirect = "unionfsd/lazy"
)

// LazyMark is the value of the mark on a lazy copy of the lower file that st describes, which must not change.
func LazyMark(st *unix.Stat_t) []byte {
	b := []byte{lazyVersion, lazyMarkLen, 0, 0} // struct ovl_metacopy: version, len, flags, digest_algo
	for _, v := range []int64{st.Size, st.Mtim.Sec, st.Mtim.Nsec} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// IsLazyMark reports whether the value of overlay.metacopy marks a lazy copy.
func IsLazyMark(value []byte) bool { return len(value) == lazyMarkLen && value[0] == lazyVersion }

// BuildLazy makes a lazy copy of src, not visible yet, or a whole one where the file system shares blocks. It returns
// nil where the file system cannot have lazy copies, or src cannot.
func (c *Copier) BuildLazy(src Source, opt Options) (s *layer.Staged, lazy bool, err error) {
	if _, err := src.Ref.GetxattrInto("security.capability", nil); err == nil {
		return nil, false, nil // which filling would clear
	}
	s, dst, err := c.Work.StageFile(0o600)
	if err != nil {
		return nil, false, err
	}
	fail := func(err error) (*layer.Staged, bool, error) {
		s.Discard()
		return nil, false, err
	}
	in, err := src.Ref.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(in)
	lazy = !sys.Clone(dst, in)
	if lazy {
		if exact, err := tellsBlocks(dst); err != nil || !exact {
			return fail(err)
		}
		if err := sys.Ftruncate(dst, src.Stat.Size); err != nil {
			return fail(err)
		}
		if err := s.Ref().Setxattr(c.Xattr.Redirect, []byte(lazyRedirect), 0); err != nil {
			return fail(err)
		}
		if err := s.Ref().Setxattr(c.Xattr.Metacopy, LazyMark(&src.Stat), 0); err != nil {
			return fail(err)
		}
	}
	if err := c.metadata(s.Ref(), src, opt); err != nil {
		return fail(err)
	}
	return s, lazy, nil
}

// Unmark makes a lazy copy, of which all data are on disk, a plain file. A redirect without the other mark means nothing,
// while that one alone would stand for the lower data. It may be called again after an error.
func Unmark(file layer.Ref, x layer.XattrNames) error {
	if err := file.Removexattr(x.Metacopy); err != nil && err != unix.ENODATA {
		return err
	}
	if err := file.Removexattr(x.Redirect); err != nil && err != unix.ENODATA {
		return err
	}
	return nil
}

// lazyUnit is the smallest piece that is copied, in bytes: a multiple of what file systems allocate.
const lazyUnit = 4096

// tellsBlocks finds out, in the empty file fd, whether the file system tells exactly which blocks were written. tmpfs
// does not: it joins small pages to large ones when it likes, and what was a hole is data then.
func tellsBlocks(fd int) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false, err
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Bsize > lazyUnit {
		return false, nil
	}
	const at = 4 << 20
	if err := sys.PwriteAll(fd, make([]byte, lazyUnit), at); err != nil {
		return false, err
	}
	if err := sys.Ftruncate(fd, 2*at); err != nil {
		return false, err
	}
	data, err1 := unix.Seek(fd, 0, unix.SEEK_DATA)
	hole, err2 := unix.Seek(fd, at, unix.SEEK_HOLE)
	return err1 == nil && err2 == nil && data == at && hole == at+lazyUnit, sys.Ftruncate(fd, 0)
}

// Lazy is a lazy copy that is being read, written and filled.
type Lazy struct {
	upper, lower int   // the copy, open for both; the file that has the data
	limit        int64 // how much of the lower file shows

	mu      sync.RWMutex
	missing []uint64 // a bit for each unit that is still in the lower file
	left    int      // how many these are
	next    int      // where Fill goes on
}

// OpenLazy takes over upper, a lazy copy, and lower, the file with its data, of which limit bytes show.
func OpenLazy(upper, lower int, limit int64) (*Lazy, error) {
	units := int((limit + lazyUnit - 1) / lazyUnit)
	l := &Lazy{upper: upper, lower: lower, limit: limit, missing: make([]uint64, (units+63)/64)}
	l.setMissing(0, units, true)
	if err := l.scan(0, limit); err != nil {
		return nil, err
	}
	return l, nil
}

// Close closes both files.
func (l *Lazy) Close() {
	unix.Close(l.upper)
	unix.Close(l.lower)
}

// FD is the copy, open for reading and writing. What it has to read is not all there.
func (l *Lazy) FD() int { return l.upper }

// Left is how many bytes are still to be copied.
func (l *Lazy) Left() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return int64(l.left) * lazyUnit
}

// Do runs f while nothing is filled in: f changes the metadata of the copy.
func (l *Lazy) Do(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f()
}

// scan notes which units of [off, end) the copy has.
func (l *Lazy) scan(off, end int64) error {
	for off < end {
		data, err := unix.Seek(l.upper, off, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && data >= end {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(l.upper, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		hole = min(hole, end)
		l.setMissing(int(data/lazyUnit), int((hole+lazyUnit-1)/lazyUnit), false)
		off = hole
	}
	return nil
}

func (l *Lazy) isMissing(unit int) bool {
	return unit/64 < len(l.missing) && l.missing[unit/64]&(1<<(unit%64)) != 0
}

// setMissing notes for the units [from, to) whether they are missing.
func (l *Lazy) setMissing(from, to int, missing bool) {
	for u := from; u < to && u/64 < len(l.missing); u++ {
		bit := uint64(1) << (u % 64)
		switch was := l.missing[u/64]&bit != 0; {
		case missing && !was:
			l.missing[u/64] |= bit
			l.left++
		case !missing && was:
			l.missing[u/64] &^= bit
			l.left--
		}
	}
}

// run returns the end of the units from unit on that are as unit is, missing or not, at most to.
func (l *Lazy) run(unit, to int) int {
	is := l.isMissing(unit)
	for unit++; unit < to && l.isMissing(unit) == is; unit++ {
	}
	return unit
}

// ReadAt reads the joined file. A short count is the end of the file.
func (l *Lazy) ReadAt(b []byte, off int64) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var st unix.Stat_t
	if err := unix.Fstat(l.upper, &st); err != nil {
		return 0, err
	}
	b = b[:max(0, min(int64(len(b)), st.Size-off))]
	last := int((off + int64(len(b)) + lazyUnit - 1) / lazyUnit)
	for n := 0; n < len(b); {
		unit := int((off + int64(n)) / lazyUnit)
		end := min(int64(len(b)), int64(l.run(unit, last))*lazyUnit-off)
		if err := l.readRun(b[n:end], off+int64(n), l.isMissing(unit)); err != nil {
			return n, err
		}
		n = int(end)
	}
	return len(b), nil
}

// readRun reads from one of the files. What it does not have is zeros.
func (l *Lazy) readRun(b []byte, off int64, missing bool) error {
	fd, has := l.upper, b
	if missing {
		fd, has = l.lower, b[:max(0, min(int64(len(b)), l.limit-off))]
	}
	n, err := sys.PreadAll(fd, has, off)
	clear(b[n:])
	return err
}

// WriteAt writes into the copy.
func (l *Lazy) WriteAt(b []byte, off int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := off + int64(len(b))
	if len(b) == 0 {
		return nil
	}
	for _, at := range []int64{off, end} {
		if unit := int(at / lazyUnit); at%lazyUnit != 0 && l.isMissing(unit) {
			if err := l.copyRun(unit, unit+1); err != nil {
				return err
			}
		}
	}
	if err := sys.PwriteAll(l.upper, b, off); err != nil {
		_ = l.scan(off/lazyUnit*lazyUnit, min(end, l.limit)) // some of it may be there
		return err
	}
	l.setMissing(int(off/lazyUnit), int((end+lazyUnit-1)/lazyUnit), false)
	return nil
}

// copyRun copies missing units.
func (l *Lazy) copyRun(from, to int) error {
	off := int64(from) * lazyUnit
	b := make([]byte, min(int64(to)*lazyUnit, l.limit)-off)
	n, err := sys.PreadAll(l.lower, b, off)
	if err != nil {
		return err
	}
	clear(b[n:])
	if err := sys.PwriteAll(l.upper, b, off); err != nil {
		_ = l.scan(off, off+int64(len(b)))
		return err
	}
	l.setMissing(from, to, false)
	return nil
}

// Fill copies some more, and reports whether there is more left. Times stay as they are.
func (l *Lazy) Fill() (more bool, err error) {
	const most = 1 << 20 / lazyUnit // a reader waits for no more than that
	l.mu.Lock()
	defer l.mu.Unlock()
	unit, found := l.nextMissing()
	if !found {
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.upper, &st); err != nil {
		return true, err
	}
	if skipped := l.skipHole(unit); skipped {
		return l.left > 0, nil
	}
	to := l.run(unit, min(unit+most, len(l.missing)*64))
	if hole, err := unix.Seek(l.lower, int64(unit)*lazyUnit, unix.SEEK_HOLE); err == nil {
		to = max(unit+1, min(to, int((hole+lazyUnit-1)/lazyUnit)))
	}
	err = l.copyRun(unit, to)
	if terr := layer.RefFD(l.upper).Utimens([2]unix.Timespec{st.Atim, st.Mtim}); err == nil {
		err = terr
	}
	return l.left > 0, err
}

// Truncate makes the copy empty, with nothing missing.
func (l *Lazy) Truncate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := sys.Ftruncate(l.upper, 0); err != nil {
		return err
	}
	l.setMissing(0, len(l.missing)*64, false)
	l.limit = 0
	return nil
}

// skipHole notes that the copy has what the lower file has from unit on, if that is a hole, and reports whether it is. The
// copy has a hole there, too.
func (l *Lazy) skipHole(unit int) bool {
	data, err := unix.Seek(l.lower, int64(unit)*lazyUnit, unix.SEEK_DATA)
	if err == unix.ENXIO {
		data, err = l.limit+lazyUnit-1, nil
	}
	end := int(data / lazyUnit)
	if err != nil || end <= unit {
		return false
	}
	l.setMissing(unit, end, false)
	return true
}

func (l *Lazy) nextMissing() (unit int, found bool) {
	if l.left == 0 {
		return 0, false
	}
	for l.missing[l.next] == 0 {
		l.next = (l.next + 1) % len(l.missing)
	}
	return l.next*64 + bits.TrailingZeros64(l.missing[l.next]), true
}
