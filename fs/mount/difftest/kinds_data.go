package difftest

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// openFlags are the flags that an open may have besides its access mode. O_NONBLOCK is always there, for fifos.
var openFlags = []struct {
	name string
	flag int
}{
	{"creat", unix.O_CREAT}, {"excl", unix.O_EXCL}, {"trunc", unix.O_TRUNC}, {"append", unix.O_APPEND},
	{"nofollow", unix.O_NOFOLLOW}, {"directory", unix.O_DIRECTORY}, {"path", unix.O_PATH}, {"sync", unix.O_SYNC},
}

var accessModes = map[string]int{"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR}

func openArgs(g generator) []string {
	flags := []string{pick(g, "rdonly", "rdonly", "wronly", "rdwr", "rdwr")}
	for _, f := range openFlags {
		if g.Intn(8) == 0 {
			flags = append(flags, f.name)
		}
	}
	return []string{g.slot(), g.path(), strings.Join(flags, ","), g.octal()}
}

func openSlot(s *side, a []string) string {
	flags := unix.O_NONBLOCK | unix.O_CLOEXEC
	for _, word := range strings.Split(a[2], ",") {
		flags |= accessModes[word]
		for _, f := range openFlags {
			if f.name == word {
				flags |= f.flag
			}
		}
	}
	fd, err := unix.Open(s.path(a[1]), flags, uint32(number(a[3], 8)))
	if err != nil {
		return result(err)
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		s.filled(a[1])
	}
	i := number(a[0], 10) % slots
	_ = s.closeSlot(i)
	s.open[i] = fd
	return "ok"
}

// writePath opens a file that exists and writes to it once.
func writePath(flags int) func(s *side, a []string) string {
	return func(s *side, a []string) string {
		fd, err := unix.Open(s.path(a[0]), flags|unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return result(err)
		}
		defer unix.Close(fd)
		if _, err := unix.Seek(fd, int64(number(a[1], 10)), io.SeekStart); err != nil {
			return "seek " + result(err)
		}
		return results(unix.Write(fd, []byte(expand(a[2]))))
	}
}

func pathOffData(g generator) []string { return []string{g.path(), g.offset(), g.data()} }
func slotOffData(g generator) []string { return []string{g.slot(), g.offset(), g.data()} }
func slotRange(g generator) []string   { return []string{g.slot(), g.offset(), g.offset()} }

func fallocate(mode uint32) func(s *side, a []string) string {
	return func(s *side, a []string) string {
		return result(unix.Fallocate(s.slotFD(a[0]), mode, int64(number(a[1], 10)), int64(number(a[2], 10))))
	}
}

// dataKinds read and change what is in files.
var dataKinds = []kind{
	{"open", 12, true, openArgs, openSlot},
	{"close", 3, false, oneSlot, func(s *side, a []string) string { return result(s.closeSlot(number(a[0], 10) % slots)) }},
	{"pread", 6, false, slotRange, func(s *side, a []string) string {
		b := make([]byte, number(a[2], 10))
		n, err := unix.Pread(s.slotFD(a[0]), b, int64(number(a[1], 10)))
		return results(runs(b[:max(n, 0)]), err)
	}},
	{"pwrite", 8, false, slotOffData, func(s *side, a []string) string {
		return results(unix.Pwrite(s.slotFD(a[0]), []byte(expand(a[2])), int64(number(a[1], 10))))
	}},
	{"write", 5, true, pathOffData, writePath(0)},
	{"append", 5, true, pathOffData, writePath(unix.O_APPEND)},
	{"overwrite", 3, true, pathOffData, writePath(unix.O_TRUNC)},
	{"read", 5, true, onePath, func(s *side, a []string) string {
		fd, err := unix.Open(s.path(a[0]), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return result(err)
		}
		defer unix.Close(fd)
		b, err := readAll(fd)
		return results(runs(b), err)
	}},
	{"ftruncate", 3, false, func(g generator) []string { return []string{g.slot(), g.offset()} }, func(s *side, a []string) string {
		return result(unix.Ftruncate(s.slotFD(a[0]), int64(number(a[1], 10))))
	}},
	{"fallocate", 1, false, slotRange, fallocate(0)},
	{"fallocate-keep", 1, false, slotRange, fallocate(unix.FALLOC_FL_KEEP_SIZE)},
	{"punch", 2, false, slotRange, fallocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)},
	{"zero", 1, false, slotRange, fallocate(unix.FALLOC_FL_ZERO_RANGE)},
	{"fsync", 1, false, oneSlot, func(s *side, a []string) string { return result(unix.Fsync(s.slotFD(a[0]))) }},
	{"copy-range", 2, false, func(g generator) []string {
		return []string{g.slot(), g.offset(), g.slot(), g.offset(), g.offset()}
	}, func(s *side, a []string) string {
		from, to := int64(number(a[1], 10)), int64(number(a[3], 10))
		n, err := unix.CopyFileRange(s.slotFD(a[0]), &from, s.slotFD(a[2]), &to, number(a[4], 10), 0)
		return results(n, err)
	}},
	{"mmap-write", 3, false, func(g generator) []string { return []string{g.slot(), g.data()} }, mmapWrite},
	{"mmap-read", 2, false, oneSlot, mmapRead},
	{"freaddir", 2, false, oneSlot, func(s *side, a []string) string { return readdir(s.slotFD(a[0])) }},
	{"flink", 2, false, func(g generator) []string { return []string{g.slot(), g.path()} }, func(s *side, a []string) string {
		return result(unix.Linkat(s.slotFD(a[0]), "", unix.AT_FDCWD, s.path(a[1]), unix.AT_EMPTY_PATH))
	}},
	{"mkdirat", 2, false, func(g generator) []string { return []string{g.slot(), pick(g, "a", "b", "c", "d")} }, func(s *side, a []string) string {
		fd := s.slotFD(a[0])
		if fd < 0 {
			return "EBADF"
		}
		return result(unix.Mkdirat(fd, a[1], 0o755))
	}},
}

// readAll reads up to the end or an error; an os.File would wait for more where that is EAGAIN.
func readAll(fd int) ([]byte, error) {
	var all []byte
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, b)
		if n <= 0 {
			return all, err
		}
		all = append(all, b[:n]...)
	}
}

// mapped runs f on a shared mapping of all that an open file has.
func mapped(fd, prot int, f func(m []byte) string) (out string) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return result(err)
	}
	if st.Size == 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "nothing to map"
	}
	m, err := unix.Mmap(fd, 0, int(st.Size), prot, unix.MAP_SHARED)
	if err != nil {
		return result(err)
	}
	defer unix.Munmap(m)
	// A page that cannot be read is a SIGBUS.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			out = fmt.Sprint("fault: ", r)
		}
	}()
	return f(m)
}

func mmapWrite(s *side, a []string) string {
	return mapped(s.slotFD(a[0]), unix.PROT_READ|unix.PROT_WRITE, func(m []byte) string {
		return fmt.Sprint("ok ", copy(m, expand(a[1])))
	})
}

func mmapRead(s *side, a []string) string {
	return mapped(s.writableFD(a[0]), unix.PROT_READ, func(m []byte) string { return "ok " + runs(m) })
}

// runs tells what b holds as lengths of equal bytes: "10*a 5*\x00".
func runs(b []byte) string {
	var out []string
	for len(b) > 0 {
		n := 1
		for n < len(b) && b[n] == b[0] {
			n++
		}
		out = append(out, fmt.Sprintf("%d*%s", n, strings.Trim(fmt.Sprintf("%q", b[:1]), `"`)))
		b = b[n:]
	}
	return strings.Join(out, " ")
}
