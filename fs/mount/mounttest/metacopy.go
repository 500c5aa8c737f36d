package mounttest

import (
	"github.com/unionfsd/unionfsd/fs/layer"
)

var metacopies = []check{
	{"chmod of a metacopy of a lower layer copies no data", func(u *union) {
		u.spec.Options = layer.Options{Metacopy: true, RedirectDir: layer.RedirectOn}
		u.mount("file f size=4 metacopy\nfile g size=4 metacopy redirect=/d/old\ndir to", "file f \"data\"\ndir d\nfile d/old \"olds\"")
		u.ok(u.chmod("f", 0o600))
		u.ok(u.chmod("g", 0o600))
		equal(u, u.read("f")+u.read("g"), "dataolds")
		u.upper("file f \"\\x00\\x00\\x00\\x00\" mode=0600 metacopy\nfile g \"\\x00\\x00\\x00\\x00\" mode=0600 metacopy")
		u.remount()
		u.ok(u.rename("g", "to/g"))
		u.append("f", "+")
		const want = "file f \"data+\" mode=0600\ndir d\nfile d/old \"olds\"\ndir to\nfile to/g \"olds\" mode=0600"
		u.merged(want)
		u.remount()
		u.merged(want)
		u.append("to/g", "+")
		equal(u, u.read("to/g"), "olds+")
	}},
	{"chmod of a file with its data in a data-only layer copies no data", func(u *union) {
		u.mountData(layer.Options{Metacopy: true, RedirectDir: layer.RedirectOn}, pointer, "", objects)
		u.ok(u.chmod("f", 0o600))
		u.ok(u.chmod("d", 0o700))
		u.upper("file f \"\\x00\\x00\\x00\\x00\" mode=0600 owner=1:2 metacopy\ndir d mode=0700")
		equal(u, u.read("f"), "data")
		u.remount()
		equal(u, u.read("f"), "data")
		u.append("f", "+")
		equal(u, u.read("f"), "data+")
	}},
	{"with redirects that are only followed, in a union that cannot be written", func(u *union) {
		u.spec.Options = layer.Options{Metacopy: true, RedirectDir: layer.RedirectFollow}
		u.mountReadOnly("file f size=4 metacopy redirect=/d/f\ndir e redirect=d", "dir d\nfile d/f \"data\"")
		u.merged("file f \"data\"\ndir d\nfile d/f \"data\"\ndir e\nfile e/f \"data\"")
	}},
}
