package mounttest

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/fs/layer"
	"github.com/unionfsd/unionfsd/internal/testfs"
)

// mountData makes lower layers of the trees before the empty one and data-only layers of those after it, and mounts
// them.
func (u *union) mountData(options layer.Options, trees ...string) {
	u.Helper()
	u.layersData(options, trees...)
	u.remount()
}

func (u *union) layersData(options layer.Options, trees ...string) {
	u.Helper()
	var lowers, data []string
	for list := &lowers; len(trees) > 0; trees = trees[1:] {
		if trees[0] == "" {
			list = &data
			continue
		}
		*list = append(*list, trees[0])
	}
	u.layers(lowers...)
	u.spec.Options = options
	u.spec.Data = testfs.Layers(u, len(data))
	for i, text := range data {
		testfs.Write(u, u.spec.Data[i], text)
	}
}

// noFile ends the check if one of the files can be looked up, or fails in another way.
func (u *union) noFile(want unix.Errno, names ...string) {
	u.Helper()
	for _, name := range names {
		_, err := u.lstat(name)
		u.fails(want, err)
	}
}

// pointer is a file of a lower layer whose data are in a data-only one.
const pointer = "file f size=4 metacopy redirect=/objects/1 mode=0640 owner=1:2\ndir d\nfile d/plain \"p\"\n"

const objects = "dir objects\nfile objects/1 \"data\" mode=0600\nfile objects/2 \"2\"\nfile seen"

var dataonly = []check{
	{"the data are found, and nothing else is shown", func(u *union) {
		u.mountData(layer.Options{}, pointer, "", objects)
		u.merged("file f \"data\" mode=0640 owner=1:2\ndir d\nfile d/plain \"p\"")
		equal(u, u.stat("f").Size, 4)
		u.missing("objects")
		u.missing("seen")
	}},
	{"the first of several layers that has them", func(u *union) {
		u.mountData(layer.Options{}, pointer, "", "dir objects\nfile objects/2 \"x\"", objects, "dir objects\nfile objects/1 \"last\"")
		equal(u, u.read("f"), "data")
	}},
	{"looked for when they are needed", func(u *union) {
		u.mountData(layer.Options{}, pointer, "", "dir objects")
		equal(u, u.stat("f").Size, 4)
		equal(u, u.list("."), "d f")
		u.ok(os.WriteFile(u.spec.Data[0]+"/objects/1", []byte("late"), 0o644))
		equal(u, u.read("f"), "late")
	}},
	{"missing, or not a regular file", func(u *union) {
		u.mountData(layer.Options{}, pointer+"file g size=1 metacopy redirect=/dir\nfile h size=1 metacopy redirect=/link\nfile i size=1 metacopy redirect=/link/x",
			"", "dir dir\nsymlink link -> dir\nfile dir/x")
		for name, errno := range map[string]unix.Errno{"f": unix.ENOENT, "g": unix.ENOENT, "h": unix.ENOENT, "i": unix.ELOOP} {
			size := u.stat(name).Size
			u.fails(errno, u.openErr(name, unix.O_RDONLY, 0))
			u.fails(errno, u.openErr(name, unix.O_WRONLY|unix.O_TRUNC, 0))
			u.fails(errno, u.chmod(name, 0o600))
			u.fails(errno, u.rename(name, "new"))
			equal(u, u.stat(name).Size, size)
			u.ok(u.unlink(name))
		}
	}},
	{"changed", func(u *union) {
		u.mountData(layer.Options{}, pointer+"file g size=4 metacopy redirect=/objects/1", "", objects)
		fd := u.open("f", unix.O_RDONLY, 0)
		u.append("f", "+")
		equal(u, u.readFD(fd), "data+")
		u.ok(u.chmod("g", 0o600))
		u.ok(u.rename("g", "d/g"))
		u.upper("file f \"data+\" mode=0640 owner=1:2\nwhiteout g\ndir d\nfile d/g \"data\" mode=0600")
		u.remount()
		u.merged("file f \"data+\" mode=0640 owner=1:2\ndir d\nfile d/plain \"p\"\nfile d/g \"data\" mode=0600")
	}},
	{"changed with metacopy", func(u *union) {
		u.mountData(layer.Options{Metacopy: true}, pointer+"file g size=4 metacopy redirect=/objects/1", "", objects)
		u.ok(u.chmod("f", 0o600))
		u.ok(u.chmod("g", 0o600))
		u.ok(u.rename("g", "d/g"))
		for range 2 {
			equal(u, u.read("f"), "data")
			equal(u, u.read("d/g"), "data")
			u.remount()
		}
		u.append("d/g", "+")
		equal(u, u.read("d/g"), "data+")
	}},
	{"without metacopy only from the lowest layer", func(u *union) {
		u.mountData(layer.Options{}, pointer, "file x", "", objects)
		u.noFile(unix.EPERM, "f")
		equal(u, u.read("d/plain"), "p")
	}},
	{"with metacopy from any layer", func(u *union) {
		u.mountData(layer.Options{Metacopy: true}, pointer, "file x", "", objects)
		equal(u, u.read("f"), "data")
	}},
	{"a lower layer comes first", func(u *union) {
		u.mountData(layer.Options{Metacopy: true}, pointer, "dir objects\nfile objects/1 \"mine\"", "", objects)
		equal(u, u.read("f"), "mine")
	}},
	{"redirects that are not absolute, or none", func(u *union) {
		u.mountData(layer.Options{}, "file f size=1 metacopy redirect=seen\nfile g size=1 metacopy\nfile h size=4 metacopy redirect=/objects/../objects/1", "", objects)
		u.noFile(unix.EPERM, "f", "g")
		equal(u, u.read("h"), "data")
	}},
	{"the same with metacopy", func(u *union) {
		u.mountData(layer.Options{Metacopy: true}, "file f size=1 metacopy redirect=seen\nfile g size=1 metacopy", "", objects)
		u.noFile(unix.EIO, "f", "g")
	}},
	{"an upper file cannot point there", func(u *union) {
		u.onUpper = "file f size=4 metacopy redirect=/objects/1"
		u.mountData(layer.Options{Metacopy: true}, "file x", "", objects)
		u.noFile(unix.EIO, "f")
	}},
	{"nor without metacopy", func(u *union) {
		u.onUpper = "file f size=4 metacopy redirect=/objects/1"
		u.mountData(layer.Options{}, "file x", "", objects)
		u.noFile(unix.EPERM, "f")
	}},
	{"data that no layer has", func(u *union) {
		u.mount("file f size=1 metacopy\nfile g size=1 metacopy redirect=/x\nfile h metacopy")
		u.noFile(unix.EPERM, "f", "g", "h")
	}},
	{"data that no layer has, with metacopy", func(u *union) {
		u.mountData(layer.Options{Metacopy: true}, "file f size=1 metacopy\nfile g size=1 metacopy redirect=/x\nfile h metacopy")
		u.noFile(unix.EIO, "f", "g", "h")
	}},
	{"redirect_dir=nofollow", func(u *union) {
		u.mountData(layer.Options{RedirectDir: layer.RedirectNoFollow}, pointer, "", objects)
		equal(u, u.read("f"), "data")
	}},
	{"userxattr", func(u *union) {
		u.mountData(layer.Options{UserXattr: true}, "file f size=4 user.overlay.metacopy=\"\" user.overlay.redirect=\"/objects/1\"", "", objects)
		equal(u, u.read("f"), "data")
		u.append("f", "+")
		u.upper("file f \"data+\"")
	}},
	{"without an upper layer", func(u *union) {
		u.layersData(layer.Options{}, pointer, "", objects)
		u.spec.Upper, u.spec.Work = "", ""
		u.remount()
		equal(u, u.read("f"), "data")
	}},
	{"with an index", func(u *union) {
		u.mountData(layer.Options{Index: true, Metacopy: true}, pointer+"hardlink g -> f", "", objects)
		u.ok(u.chmod("g", 0o600))
		equal(u, u.read("f"), "data")
		u.append("f", "+")
		equal(u, u.read("g"), "data+")
	}},
	{"mapped and executed", func(u *union) {
		big := strings.Repeat("0123456789abcdef", 1<<12)
		u.layersData(layer.Options{}, "file f size=65536 metacopy redirect=/big", "", "dir d")
		u.ok(os.WriteFile(u.spec.Data[0]+"/big", []byte(big), 0o755))
		u.remount()
		fd := u.open("f", unix.O_RDONLY, 0)
		m, err := unix.Mmap(fd, 0, len(big), unix.PROT_READ, unix.MAP_SHARED)
		u.ok(err)
		defer unix.Munmap(m)
		equal(u, string(m) == big, true)
	}},
}
