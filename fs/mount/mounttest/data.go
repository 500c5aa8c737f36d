package mounttest

import (
	"math/rand"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const page = 4096

// sparse is a file of 1 MiB with data in two places.
const sparse = `file f size=1048576 data=262144:"one" data=524288:"two"`

var data = []check{
	{"read and write at offsets", func(u *union) {
		u.mount(`file f "0123456789"`)
		fd := u.open("f", unix.O_RDWR, 0)
		u.writeAt(fd, 12, "xy")
		u.writeAt(fd, 0, "A")
		b := make([]byte, 100)
		n, err := unix.Pread(fd, b, 8)
		u.ok(err)
		equal(u, string(b[:n]), "89\x00\x00xy")
		n, err = unix.Pread(fd, b, 1000)
		u.ok(err)
		equal(u, n, 0)
		_, err = unix.Pread(fd, b, -1)
		u.fails(unix.EINVAL, err)
		equal(u, u.fstat(fd).Size, 14)
	}},
	{"large writes", func(u *union) {
		u.mount("dir d")
		want := make([]byte, 3<<20+77)
		rand.New(rand.NewSource(2)).Read(want)
		u.write("d/f", string(want))
		equal(u, u.read("d/f") == string(want), true)
		u.remount()
		equal(u, u.read("d/f") == string(want), true)
	}},
	{"vectors", func(u *union) {
		u.mount(`file f "0123456789"`)
		fd := u.open("f", unix.O_RDWR, 0)
		_, err := unix.Pwritev(fd, [][]byte{[]byte("ab"), []byte("cd")}, 4)
		u.ok(err)
		a, b := make([]byte, 5), make([]byte, 5)
		_, err = unix.Preadv(fd, [][]byte{a, b}, 0)
		u.ok(err)
		equal(u, string(a)+string(b), "0123abcd89")
	}},
	{"shared mappings", func(u *union) {
		u.mount("file f size=8192 data=0:\"lower\"")
		fd := u.open("f", unix.O_RDWR, 0)
		m := u.mmap(fd, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		equal(u, string(m[:5]), "lower")
		copy(m[page:], "mapped")
		u.ok(unix.Msync(m, unix.MS_SYNC))
		equal(u, u.read("f")[page:page+6], "mapped")
		u.writeAt(fd, 0, "WRITE")
		equal(u, string(m[:5]), "WRITE")
		u.ok(unix.Munmap(m))
		u.remount()
		equal(u, u.read("f")[page:page+6], "mapped")
		equal(u, u.read("f")[:5], "WRITE")
	}},
	{"a store through a mapping shows in the time of change", func(u *union) {
		u.mount("dir d")
		u.write("d/f", strings.Repeat("x", page))
		u.ok(u.utimes("d/f", old))
		equal(u, u.stat("d/f").Mtim.Sec, old)
		fd := u.open("d/f", unix.O_RDWR, 0)
		m := u.mmap(fd, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		m[0] = 'y'
		u.ok(unix.Msync(m, unix.MS_SYNC))
		time.Sleep(100 * time.Millisecond)
		if mtime := u.stat("d/f").Mtim.Sec; mtime == old {
			u.Error("the file was not modified")
		}
		u.ok(unix.Munmap(m))
	}},
	{"a mapping outlives its descriptor and its name", func(u *union) {
		u.mount("file f size=4096 data=0:\"lower\"")
		fd := u.open("f", unix.O_RDWR, 0)
		m := u.mmap(fd, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		u.close(fd)
		u.ok(u.unlink("f"))
		m[0] = 'L'
		equal(u, string(m[:5]), "Lower")
		u.ok(unix.Munmap(m))
	}},
	{"private mappings copy nothing", func(u *union) {
		u.mount("file f size=4096 data=0:\"lower\"")
		fd := u.open("f", unix.O_RDONLY, 0)
		m := u.mmap(fd, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		m[0] = 'L'
		equal(u, string(m[:5]), "Lower")
		equal(u, u.read("f")[:5], "lower")
		u.upper("")
		u.ok(unix.Munmap(m))
	}},
	{"fallocate", func(u *union) {
		u.mount("file f size=65536 data=0:\"start\" data=65530:\"end\"")
		fd := u.open("f", unix.O_RDWR, 0)
		u.ok(unix.Fallocate(fd, 0, 0, 100000))
		equal(u, u.fstat(fd).Size, 100000)
		u.ok(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 200000))
		equal(u, u.fstat(fd).Size, 100000)
		u.ok(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		got := u.read("f")
		equal(u, got[:5], "\x00\x00\x00\x00\x00")
		equal(u, got[65530:65533], "end")
		u.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 65530, 2))
		equal(u, u.read("f")[65530:65533], "\x00\x00d")
		u.fails(unix.EOPNOTSUPP, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 4096))
		u.fails(unix.EINVAL, unix.Fallocate(fd, 0, 0, 0))
		u.fails(unix.EBADF, unix.Fallocate(u.open("f", unix.O_RDONLY, 0), 0, 0, 1))
	}},
	{"holes are found", func(u *union) {
		u.onUpper = strings.Replace(sparse, "file f", "file up", 1)
		u.mount(sparse)
		for _, name := range []string{"up", "f"} {
			u.holes(u.open(name, unix.O_RDONLY, 0))
		}
	}},
	{"copy-up keeps holes", func(u *union) {
		// The kernel copies 1 MiB from where data begin, holes or not; more than that must not be filled.
		const want = `file f size=33554432 data=8388608:"one" data=16777216:"two" mode=0600`
		u.mount(strings.Replace(want, " mode=0600", "", 1))
		u.ok(u.chmod("f", 0o600))
		u.merged(want)
		u.upper(want)
		var st unix.Stat_t
		u.ok(unix.Stat(u.up("f"), &st))
		if st.Blocks > 2<<20/512+64 {
			u.Errorf("the copy of a file with 8 KiB of data has %d blocks", st.Blocks)
		}
	}},
	{"copy_file_range", func(u *union) {
		u.mount("file a \"0123456789\"\nfile b \"abcdefghij\"")
		in, out := u.open("a", unix.O_RDONLY, 0), u.open("b", unix.O_RDWR, 0)
		from, to := int64(2), int64(8)
		n, err := unix.CopyFileRange(in, &from, out, &to, 5, 0)
		u.ok(err)
		equal(u, n, 5)
		equal(u, from, 7)
		equal(u, to, 13)
		equal(u, u.read("b"), "abcdefgh23456")
		n, err = unix.CopyFileRange(out, nil, out, &to, 3, 0)
		u.ok(err)
		equal(u, n, 3)
		equal(u, u.read("b"), "abcdefgh23456abc")
		from = 100
		n, err = unix.CopyFileRange(in, &from, out, &to, 5, 0)
		u.ok(err)
		equal(u, n, 0)
		u.upper(`file b "abcdefgh23456abc"`)
	}},
	{"sendfile and splice", func(u *union) {
		u.mount(`file a "0123456789"`)
		in := u.open("a", unix.O_RDONLY, 0)
		out := u.open("b", unix.O_CREAT|unix.O_RDWR, 0o644)
		off := int64(3)
		n, err := unix.Sendfile(out, in, &off, 100)
		u.ok(err)
		equal(u, n, 7)
		equal(u, u.read("b"), "3456789")
		var p [2]int
		u.ok(unix.Pipe2(p[:], unix.O_CLOEXEC))
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		off = 0
		m, err := unix.Splice(in, &off, p[1], nil, 4, 0)
		u.ok(err)
		equal(u, m, 4)
		to := int64(7)
		m, err = unix.Splice(p[0], nil, out, &to, 4, 0)
		u.ok(err)
		equal(u, m, 4)
		equal(u, u.read("b"), "34567890123")
	}},
	{"sync", func(u *union) {
		u.mount(`file f "x"`)
		fd := u.open("f", unix.O_RDWR, 0)
		u.writeAt(fd, 0, "y")
		u.ok(unix.Fsync(fd))
		u.ok(unix.Fdatasync(fd))
		u.ok(unix.SyncFileRange(fd, 0, 0, 0))
		u.ok(unix.Syncfs(fd))
		u.upper(`file f "y"`)
		ro := u.open("f", unix.O_RDONLY, 0)
		u.ok(unix.Fsync(ro))
	}},
	{"two descriptors see each other's writes", func(u *union) {
		u.mount(`file f "0123"`)
		a, b := u.open("f", unix.O_RDWR, 0), u.open("f", unix.O_RDWR, 0)
		for i := range 20 {
			u.writeAt(a, int64(i), "a")
			u.writeAt(b, int64(i)+1, "b")
			got := u.readFD(a)
			equal(u, u.readFD(b), got)
			equal(u, len(got), max(4, i+2))
		}
	}},
	{"what is cut off does not come back", func(u *union) {
		u.mount(`file f "0123456789"`)
		fd := u.open("f", unix.O_RDWR, 0)
		u.ok(unix.Ftruncate(fd, 3))
		u.ok(unix.Ftruncate(fd, 6))
		equal(u, u.readFD(fd), "012\x00\x00\x00")
		u.write("g", strings.Repeat("g", 10000))
		u.ok(u.truncate("g", 5000))
		u.ok(u.truncate("g", 9000))
		equal(u, u.read("g"), strings.Repeat("g", 5000)+strings.Repeat("\x00", 4000))
	}},
}

// holes checks the layout of a file like sparse.
func (u *union) holes(fd int) {
	u.Helper()
	seek := func(off int64, whence int, want int64) {
		u.Helper()
		got, err := unix.Seek(fd, off, whence)
		u.ok(err)
		equal(u, got, want)
	}
	seek(0, unix.SEEK_DATA, 262144)
	seek(0, unix.SEEK_HOLE, 0)
	seek(262144, unix.SEEK_HOLE, 262144+page)
	seek(300000, unix.SEEK_DATA, 524288)
	seek(524288, unix.SEEK_HOLE, 524288+page)
	_, err := unix.Seek(fd, 600000, unix.SEEK_DATA)
	u.fails(unix.ENXIO, err)
	_, err = unix.Seek(fd, 2000000, unix.SEEK_HOLE)
	u.fails(unix.ENXIO, err)
	seek(-10, unix.SEEK_END, 1048576-10)
}

func (u *union) mmap(fd, length, prot, flags int) []byte {
	u.Helper()
	m, err := unix.Mmap(fd, 0, length, prot, flags)
	u.ok(err)
	return m
}

// aligned is a buffer of n bytes that O_DIRECT takes: memory that is mapped starts on a page.
func aligned(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	return b
}
