package mounttest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var limits = []check{
	{"names of 255 bytes", func(u *union) {
		l := func(c string) string { return strings.Repeat(c, 255) }
		u.mount("file " + l("f") + " \"x\"\ndir " + l("d") + "\nfile " + l("g"))
		u.append(l("f"), "y")
		u.write(l("n"), "n")
		u.ok(u.rename(l("f"), l("r")))
		u.ok(u.mkdir(l("m")))
		u.write(join(l("d"), l("x")), "x")
		u.ok(u.unlink(l("g")))
		u.write(l("g"), "again")
		u.ok(u.link(l("g"), l("h")))
		u.merged("dir " + l("d") + "\nfile " + l("d") + "/" + l("x") + " \"x\"\nfile " + l("g") + " \"again\" nlink=2\n" +
			"hardlink " + l("h") + " -> " + l("g") + "\ndir " + l("m") + "\nfile " + l("n") + " \"n\"\nfile " + l("r") + " \"xy\"")
	}},
	{"names of 256 bytes", func(u *union) {
		u.onUpper = "file up"
		u.mount("file f\ndir d")
		name := long(256)
		_, err := u.lstat(name)
		u.fails(unix.ENAMETOOLONG, err)
		_, err = u.lstat("d/" + name)
		u.fails(unix.ENAMETOOLONG, err)
		u.fails(unix.ENAMETOOLONG, u.mkdir(name))
		u.fails(unix.ENAMETOOLONG, u.openErr(name, unix.O_CREAT|unix.O_WRONLY, 0o600))
		u.fails(unix.ENAMETOOLONG, u.openErr(name, unix.O_RDONLY, 0))
		u.fails(unix.ENAMETOOLONG, u.symlink("x", name))
		u.fails(unix.ENAMETOOLONG, u.mknod(name, unix.S_IFIFO|0o600, 0))
		u.fails(unix.ENAMETOOLONG, u.link("f", name))
		u.fails(unix.ENAMETOOLONG, u.rename("f", name))
		u.fails(unix.ENAMETOOLONG, u.rename("up", "d/"+name))
		u.fails(unix.ENAMETOOLONG, u.unlink(name))
		u.fails(unix.ENAMETOOLONG, u.rmdir("d/"+name))
	}},
	{"targets of symlinks", func(u *union) {
		target := strings.Repeat("t", 4095)
		u.mount("dir d")
		u.ok(u.symlink(target, "d/s"))
		equal(u, u.readlink("d/s"), target)
		u.fails(unix.ENAMETOOLONG, u.symlink(target+"t", "x"))
		u.fails(unix.ENOENT, u.symlink("", "x"))
	}},
	{"paths of 4095 bytes", func(u *union) {
		u.mount("dir d")
		dir := strings.Repeat("p", 254)
		path := strings.Repeat(dir+"/", 15)
		path += strings.Repeat("n", 4095-len(path)) // 270 bytes are left: two components
		path = path[:4000] + "/" + path[4001:]
		u.as(user{}, func() {
			root := u.open(".", unix.O_PATH, 0)
			for _, dir := range strings.Split(path[:4000], "/") {
				u.ok(unix.Mkdir(dir, 0o755))
				u.ok(unix.Chdir(dir))
			}
			u.ok(unix.Fchdir(root))
			u.write(path, "deep")
			u.ok(u.chmod(path, 0o600))
			u.ok(u.truncate(path, 2))
			u.ok(u.chown(path, 1, 2))
			u.ok(u.setxattr(path, "user.x", "1"))
			equal(u, u.read(path), "de")
			u.ok(u.link(path, "short"))
			u.ok(u.rename("short", "d/other"))
			u.fails(unix.ENAMETOOLONG, u.chmod(path+"x", 0))
			u.ok(u.unlink(path))
			u.ok(u.mkdir(path))
			u.ok(u.rmdir(path))
			u.ok(u.symlink("x", path))
			u.ok(u.unlink(path))
			equal(u, u.read("d/other"), "de")
		})
	}},
	{"paths that are longer still, by steps", func(u *union) {
		u.mount("dir low\nfile low/f \"f\"")
		const depth = 40
		dir := long(250)
		u.as(user{}, func() {
			u.ok(unix.Chdir("low"))
			for range depth {
				u.ok(unix.Mkdir(dir, 0o755))
				u.ok(unix.Chdir(dir))
			}
			u.write("deep", "10,000 bytes down")
			u.append("deep", ".")
			equal(u, u.read("deep"), "10,000 bytes down.")
			u.ok(u.rename("deep", "deeper"))
			u.ok(u.unlink("deeper"))
			for range depth {
				u.ok(unix.Chdir(".."))
				u.ok(unix.Rmdir(dir))
			}
			equal(u, u.list("."), "f")
		})
	}},
	{"2 layers", func(u *union) { manyLayers(u, 2) }},
	{"70 layers", func(u *union) { manyLayers(u, 70) }},
	{"200 layers", func(u *union) { manyLayers(u, 200) }},
	{"500 layers", func(u *union) { manyLayers(u, 500) }},
}

// manyLayers makes a union of n lower layers. Each has a file of its own, a merged directory, and a file that the
// layer above hides; every tenth removes what the one below it added.
func manyLayers(u *union, n int) {
	u.Helper()
	var lowers []string
	want := "dir d\nfile same \"0\"\n"
	for i := range n {
		text := fmt.Sprintf("file own%d \"%d\"\ndir d\nfile d/f%d\nfile same \"%d\"\n", i, i, i, i)
		if i%10 == 3 && i+1 < n {
			text += fmt.Sprintf("whiteout own%d\n", i+1)
		}
		if i%10 != 4 {
			want += fmt.Sprintf("file own%d \"%d\"\n", i, i)
		}
		want += fmt.Sprintf("file d/f%d\n", i)
		lowers = append(lowers, text)
	}
	u.mount(lowers...)
	u.merged(want)
	last := n - 1
	if last%10 == 4 {
		last--
	}
	u.append(fmt.Sprintf("own%d", last), "+")
	u.ok(u.unlink("same"))
	u.missing("same")
	u.ok(u.unlink(fmt.Sprintf("d/f%d", n-1)))
	u.upper(fmt.Sprintf("file own%d \"%d+\"\nwhiteout same\ndir d\nwhiteout d/f%d", last, last, n-1))
}
