package mounttest

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// mountIndex is mount with option index=on.
func (u *union) mountIndex(lowers ...string) {
	u.Helper()
	u.layers(lowers...)
	u.spec.Options.Index = true
	u.remount()
}

// indexed is how many files are in the index.
func (u *union) indexed() int {
	u.Helper()
	list, err := os.ReadDir(u.spec.Work + "/index")
	u.ok(err)
	n := 0
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), "#") { // what the kernel stages
			n++
		}
	}
	return n
}

// refused ends the check if the union can be mounted.
func (u *union) refused() {
	u.Helper()
	u.unmount()
	if m, err := u.server.TryMount(u, u.spec, u.dir); err == nil {
		m.Unmount()
		u.Fatalf("it was mounted")
	}
}

const links = "file a \"1\"\nhardlink b -> a\ndir d\nhardlink d/c -> a"

// index: with index=on the names of a lower file are names of one file, whatever is done to it.
var index = []check{
	{"copy-up keeps lower links", func(u *union) {
		u.mountIndex(links)
		ino := u.stat("a").Ino
		u.append("a", "2")
		for range 2 {
			for _, name := range []string{"a", "b", "d/c"} {
				equal(u, u.read(name), "12")
				equal(u, u.stat(name).Nlink, 3)
				equal(u, u.stat(name).Ino, ino)
			}
			u.upper("file a \"12\" nlink=2") // the other one is in the index
			equal(u, u.indexed(), 1)
			u.remount()
		}
		u.append("d/c", "3")
		equal(u, u.read("b"), "123")
		u.upper("file a \"123\" nlink=3\ndir d\nhardlink d/c -> a")
	}},
	{"a name is copied when it is used", func(u *union) {
		u.mountIndex(links)
		u.ok(u.chmod("b", 0o600))
		u.upper("file b \"1\" mode=0600 nlink=2")
		u.ok(u.setxattr("a", "user.x", "1")) // an attribute is no reason, if the file is in the upper layer
		u.upper("file b \"1\" mode=0600 user.x=\"1\" nlink=2")
		u.ok(u.chmod("a", 0o600))
		u.upper("file a \"1\" mode=0600 user.x=\"1\" nlink=3\nhardlink b -> a")
		u.merged("file a \"1\" mode=0600 user.x=\"1\" nlink=3\nhardlink b -> a\ndir d\nhardlink d/c -> a")
		equal(u, u.read("d/c"), "1")
		u.upper("file a \"1\" mode=0600 user.x=\"1\" nlink=3\nhardlink b -> a")
	}},
	{"a file of one name is not indexed", func(u *union) {
		u.mountIndex("file a \"1\"\ndir d\nfile d/f")
		u.append("a", "2")
		u.append("d/f", "x")
		equal(u, u.indexed(), 0)
		u.upper("file a \"12\"\ndir d\nfile d/f \"x\"")
		equal(u, u.stat("a").Nlink, 1)
	}},
	{"one file to those who have it open", func(u *union) {
		u.mountIndex(links)
		a := u.open("a", unix.O_RDONLY, 0)
		b := u.open("b", unix.O_RDWR, 0)
		m, err := unix.Mmap(u.open("d/c", unix.O_RDWR, 0), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		u.ok(err)
		defer unix.Munmap(m)
		u.writeAt(b, 0, "B")
		equal(u, u.readFD(a), "B")
		equal(u, m[0], 'B')
		m[0] = 'C'
		equal(u, u.readFD(a), "C")
		equal(u, u.read("b"), "C")
		equal(u, u.fstat(a).Ino, u.fstat(b).Ino)
	}},
	{"removing names counts", func(u *union) {
		u.mountIndex(links)
		fd := u.open("b", unix.O_RDONLY, 0)
		u.ok(u.unlink("a"))
		u.missing("a")
		equal(u, u.stat("b").Nlink, 2)
		equal(u, u.fstat(fd).Nlink, 2)
		u.upper("whiteout a")
		u.remount()
		u.missing("a")
		equal(u, u.stat("d/c").Nlink, 2)
		equal(u, u.read("d/c"), "1")
		u.ok(u.unlink("d/c"))
		equal(u, u.stat("b").Nlink, 1)
		equal(u, u.indexed(), 1)
		fd = u.open("b", unix.O_RDWR, 0)
		u.ok(u.unlink("b"))
		equal(u, u.indexed(), 0)
		equal(u, u.fstat(fd).Nlink, 0)
		u.writeAt(fd, 1, "2")
		equal(u, u.readFD(fd), "12")
		u.ok(unix.Fchmod(fd, 0o600))
		u.upper("whiteout a\nwhiteout b\ndir d\nwhiteout d/c")
	}},
	{"removing what was changed", func(u *union) {
		u.mountIndex(links)
		u.append("a", "2")
		u.append("b", "3")
		u.ok(u.unlink("a"))
		equal(u, u.read("d/c"), "123")
		u.ok(u.unlink("b"))
		equal(u, u.read("d/c"), "123")
		equal(u, u.stat("d/c").Nlink, 1)
		u.upper("whiteout a\nwhiteout b")
		u.remount()
		equal(u, u.read("d/c"), "123")
		equal(u, u.stat("d/c").Nlink, 1)
	}},
	{"links to it count", func(u *union) {
		u.mountIndex(links)
		u.ok(u.link("b", "new"))
		equal(u, u.stat("d/c").Nlink, 4)
		u.append("new", "2")
		equal(u, u.read("a"), "12")
		u.upper("file b \"12\" nlink=3\nhardlink new -> b")
		u.ok(u.unlink("b"))
		u.ok(u.link("new", "b"))
		equal(u, u.stat("new").Nlink, 4)
		u.remount()
		equal(u, u.stat("a").Nlink, 4)
		for _, name := range []string{"a", "b", "d/c"} {
			u.ok(u.unlink(name))
		}
		equal(u, u.stat("new").Nlink, 1)
		u.remount()
		equal(u, u.read("new"), "12")
		equal(u, u.stat("new").Nlink, 1)
		u.ok(u.unlink("new"))
		equal(u, u.indexed(), 0)
	}},
	{"renaming a name", func(u *union) {
		u.mountIndex(links)
		ino := u.stat("b").Ino
		u.ok(u.rename("a", "d/a"))
		u.missing("a")
		u.append("d/a", "2")
		equal(u, u.read("b"), "12")
		equal(u, u.stat("b").Nlink, 3)
		equal(u, u.stat("d/a").Ino, ino)
		u.upper("whiteout a\ndir d\nfile d/a \"12\" nlink=2")
		u.remount()
		equal(u, u.read("d/c"), "12")
		equal(u, u.stat("d/a").Ino, u.stat("d/c").Ino)
		equal(u, u.stat("d/a").Nlink, 3)
	}},
	{"renaming over a name", func(u *union) {
		u.mountIndex(links + "\nfile f \"f\"")
		u.ok(u.rename("f", "b"))
		equal(u, u.read("b"), "f")
		equal(u, u.stat("a").Nlink, 2)
		u.append("a", "2")
		equal(u, u.read("d/c"), "12")
		u.write("new", "new")
		u.ok(u.rename("new", "a"))
		equal(u, u.stat("d/c").Nlink, 1)
		u.remount()
		u.merged("file a \"new\"\nfile b \"f\"\ndir d\nfile d/c \"12\"")
		u.ok(u.rename("a", "d/c"))
		equal(u, u.indexed(), 0)
		u.merged("file b \"f\"\ndir d\nfile d/c \"new\"")
	}},
	{"exchanging names", func(u *union) {
		u.mountIndex(links + "\nfile f \"f\"")
		u.ok(u.rename2("f", "a", unix.RENAME_EXCHANGE))
		u.append("f", "2")
		u.ok(u.rename2("b", "f", unix.RENAME_EXCHANGE))
		equal(u, u.read("d/c"), "12")
		u.merged("file a \"f\"\nfile b \"12\" nlink=3\ndir d\nhardlink d/c -> b\nhardlink f -> b")
		u.remount()
		u.merged("file a \"f\"\nfile b \"12\" nlink=3\ndir d\nhardlink d/c -> b\nhardlink f -> b")
	}},
	{"what is no file", func(u *union) {
		u.mountIndex("symlink s -> none\nhardlink s2 -> s\nfifo p\nhardlink p2 -> p\nchar c 1:3\nhardlink c2 -> c")
		for _, name := range []string{"s", "p", "c"} {
			u.ok(u.chown(name, 1, 2))
			st := u.stat(name + "2")
			equal(u, st.Uid, 1)
			equal(u, st.Nlink, 2)
			u.ok(u.unlink(name))
			equal(u, u.stat(name+"2").Nlink, 1)
		}
		u.remount()
		u.merged("symlink s2 -> none owner=1:2\nfifo p2 owner=1:2\nchar c2 1:3 owner=1:2")
	}},
	{"truncated when it is opened", func(u *union) {
		u.mountIndex(links)
		fd := u.open("b", unix.O_RDONLY, 0)
		u.write("a", "other")
		equal(u, u.readFD(fd), "other")
		equal(u, u.read("d/c"), "other")
	}},
	{"with metacopy", func(u *union) {
		u.layers(links, "file low \"l\"\nhardlink low2 -> low")
		u.spec.Options.Index, u.spec.Options.Metacopy = true, true
		u.remount()
		u.ok(u.chmod("a", 0o600))
		u.ok(u.chmod("low", 0o600))
		equal(u, u.read("b"), "1")
		equal(u, u.stat("d/c").Mode, unix.S_IFREG|0o600)
		u.ok(u.rename("b", "d/b"))
		equal(u, u.read("d/b"), "1")
		u.remount()
		for _, name := range []string{"a", "d/b", "d/c"} {
			equal(u, u.read(name), "1")
			equal(u, u.stat(name).Nlink, 3)
		}
		u.append("d/c", "2")
		u.append("low2", "2")
		equal(u, u.read("a"), "12")
		equal(u, u.read("low"), "l2")
		u.remount()
		u.merged("file a \"12\" mode=0600 nlink=3\ndir d\nhardlink d/b -> a\nhardlink d/c -> a\nfile low \"l2\" mode=0600 nlink=2\nhardlink low2 -> low")
	}},
	{"links of the upper layer alone", func(u *union) {
		u.onUpper = "file x \"1\"\nhardlink y -> x"
		u.mountIndex("file f")
		u.append("x", "2")
		equal(u, u.read("y"), "12")
		equal(u, u.stat("y").Nlink, 2)
		u.ok(u.unlink("x"))
		equal(u, u.stat("y").Nlink, 1)
		equal(u, u.indexed(), 0)
	}},
	{"the index is of no use without an upper layer", func(u *union) {
		u.layers(links)
		u.spec.Options.Index, u.spec.Upper, u.spec.Work = true, "", ""
		u.remount()
		equal(u, u.stat("b").Nlink, 3)
	}},
	{"other layers are refused", func(u *union) {
		u.mountIndex(links, "file other")
		u.append("a", "2")
		spec := u.spec
		u.spec.Lower = []string{spec.Lower[1], spec.Lower[0]}
		u.refused()
		u.spec.Lower = spec.Lower
		dirs := testfs.Layers(u, 1)
		u.spec.Upper = dirs[0]
		u.refused()
		u.spec = spec
		u.remount()
		equal(u, u.read("b"), "12")
	}},
	{"what a crash leaves in the index is removed", func(u *union) {
		u.mountIndex(links)
		u.append("a", "2")
		u.unmount()
		in := u.spec.Work + "/index/"
		list, err := os.ReadDir(in)
		u.ok(err)
		for _, e := range list {
			if strings.HasPrefix(e.Name(), "#") {
				continue
			}
			entry := in + e.Name()
			u.ok(os.Remove(u.up("a")))
			u.ok(unix.Setxattr(entry, "trusted.overlay.nlink", []byte("U-1"), 0))
			u.ok(os.WriteFile(in+"#9", []byte("half a copy"), 0o600))
		}
		u.remount()
		equal(u, u.indexed(), 0)
		equal(u, u.read("a"), "1")
	}},
	{"an entry that is nobody's is refused", func(u *union) {
		u.mountIndex(links)
		u.unmount()
		u.ok(os.WriteFile(u.spec.Work+"/index/what", nil, 0o600))
		u.refused()
		u.ok(os.Remove(u.spec.Work + "/index/what"))
		u.remount()
	}},
	{"many at once", func(u *union) {
		const names = 24
		lower := "file f0 \"x\""
		for i := 1; i < names; i++ {
			lower += fmt.Sprintf("\nhardlink f%d -> f0", i)
		}
		u.mountIndex(lower)
		var wg sync.WaitGroup
		errs := make([]error, names)
		for i := range names {
			name := fmt.Sprintf("f%d", i)
			wg.Go(func() {
				switch i % 4 {
				case 0:
					errs[i] = u.unlink(name)
				case 1:
					errs[i] = u.chmod(name, 0o600)
				case 2:
					errs[i] = u.link(name, name+"l")
				case 3:
					errs[i] = u.rename(name, name+"r")
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			u.ok(err)
		}
		for range 2 {
			st := u.stat("f1")
			equal(u, st.Mode, unix.S_IFREG|0o600)
			equal(u, st.Nlink, names)
			u.remount()
		}
	}},
}
