package difftest

import (
	"fmt"
	"math/rand"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// generator makes random cases.
type generator struct {
	*rand.Rand
	recent *[]string // the paths that came last
	links  int       // how many more hard links the layers have than usual, for 20 objects
}

// Generate makes the case of a seed, with n operations. The first operations of a case are the same for every n.
func Generate(seed int64, n int) Case { return generate(seed, n, 0) }

// GenerateLinks makes a case for index=on: as Generate, but the layers have many hard links.
func GenerateLinks(seed int64, n int) Case {
	c := generate(seed, n, 8)
	c.Options = "index=on"
	return c
}

func generate(seed int64, n, links int) Case {
	g := generator{rand.New(rand.NewSource(seed)), new([]string), links}
	var c Case
	below := view{".": testfs.Dir}
	for range 1 + g.Intn(4) {
		var t testfs.Tree
		t, below = g.layer(below)
		c.Lower = append([]string{t.Source()}, c.Lower...)
	}
	var total int
	for _, k := range kinds {
		total += k.weight
	}
	for range n {
		pick := g.Intn(total)
		for _, k := range kinds {
			if pick -= k.weight; pick < 0 {
				c.Ops = append(c.Ops, Op{Kind: k.name, Args: k.args(g), User: k.asUser && g.Intn(6) == 0})
				break
			}
		}
	}
	return c
}

// view is what layers show when stacked: what kind of object a path is.
type view map[string]testfs.Kind

// layer makes a layer over others that show below, and returns what they show together. A whiteout is put only
// where the layers below have its directory: elsewhere it means nothing, and the kernel lists it as a name.
func (g generator) layer(below view) (testfs.Tree, view) {
	t := testfs.Tree{}
	own, merged := view{".": testfs.Dir}, view{".": testfs.Dir}
	pure := map[string]bool{} // directories that are merged with nothing
	for range 4 + g.Intn(14) {
		p := g.newPath()
		dir := path.Dir(p)
		if own[dir] != testfs.Dir || own[p] != "" {
			continue
		}
		e := g.object(p)
		switch e.Kind {
		case testfs.Whiteout:
			if pure[dir] || below[dir] != testfs.Dir {
				continue
			}
		case testfs.Hardlink:
			var files []string
			for f, k := range own {
				if k == testfs.File || k == testfs.Fifo {
					files = append(files, f)
				}
			}
			if len(files) == 0 {
				continue
			}
			sort.Strings(files)
			e.Target = files[g.Intn(len(files))]
		case testfs.Dir:
			pure[p] = e.Opaque != "" || pure[dir] || below[p] != testfs.Dir
		}
		own[p] = e.Kind
		t = append(t, e)
	}
	for p, k := range own {
		if merged[p] = k; k == testfs.Whiteout {
			delete(merged, p)
		}
	}
	for p, k := range below {
		visible := true
		for q := p; q != "."; q = path.Dir(q) {
			// A name of our own hides the one below, unless both are directories and merged.
			visible = visible && (own[q] == "" || own[q] == testfs.Dir && !pure[q] && below[q] == testfs.Dir)
		}
		if visible && merged[p] == "" {
			merged[p] = k
		}
	}
	return t, merged
}

// object makes an object for a layer.
func (g generator) object(p string) testfs.Entry {
	e := testfs.Entry{Kind: testfs.File, Path: p, Mode: g.mode(), Xattrs: map[string]string{}}
	if g.Intn(3) == 0 {
		e.UID, e.GID = userID, pick[uint32](g, userID, groupID)
	}
	if g.Intn(2) == 0 {
		e.MTime = time.Unix(int64(g.Intn(1500000000)), int64(g.Intn(1e9)))
	}
	if g.Intn(4) == 0 {
		e.Xattrs[g.xattr()] = g.data()
	}
	switch n := g.Intn(20 + g.links); {
	case n < 8:
		e.Kind, e.Mode = testfs.Dir, e.Mode|0o700
		if g.Intn(6) == 0 {
			e.Opaque = "y"
		}
	case n < 13:
		d := expand(g.data())
		e.Size = int64(len(d))
		if e.Size <= 60 {
			e.Data = []testfs.Extent{{Off: 0, Data: d}}
		} else { // a hole in the middle
			e.Data = []testfs.Extent{{Off: 0, Data: d[:20]}, {Off: e.Size - 20, Data: d[:20]}}
		}
	case n < 15:
		return testfs.Entry{Kind: testfs.Symlink, Path: p, Target: g.target(), Mode: 0o777, MTime: e.MTime}
	case n < 16, n >= 20:
		return testfs.Entry{Kind: testfs.Hardlink, Path: p}
	case n < 17:
		return testfs.Entry{Kind: testfs.Fifo, Path: p, Mode: e.Mode, MTime: e.MTime}
	case n < 18:
		return testfs.Entry{Kind: testfs.Char, Path: p, Mode: e.Mode, Major: 1, Minor: 3}
	default:
		return testfs.Entry{Kind: testfs.Whiteout, Path: p}
	}
	return e
}

func pick[T any](g generator, list ...T) T { return list[g.Intn(len(list))] }

// path is a name of one to three components. Often it is one that came shortly before: faults show where several
// operations meet at one object.
func (g generator) path() string {
	if len(*g.recent) > 0 && g.Intn(5) < 2 {
		return pick(g, *g.recent...)
	}
	p := g.newPath()
	*g.recent = append(*g.recent, p)
	if len(*g.recent) > 5 {
		*g.recent = (*g.recent)[1:]
	}
	return p
}

func (g generator) newPath() string {
	n := pick(g, 1, 1, 1, 2, 2, 2, 3)
	var names []string
	for range n {
		names = append(names, pick(g, "a", "b", "c", "d"))
	}
	return strings.Join(names, "/")
}

func (g generator) target() string {
	return pick(g, "a", "b", "../c", "d/a", "a/../b", "none", ".", "/nonexistent")
}

func (g generator) mode() uint32 {
	return pick[uint32](g, 0o644, 0o644, 0o755, 0o777, 0o666, 0o600, 0o400, 0o444, 0, 0o4755, 0o2775, 0o1777, 0o6777)
}

func (g generator) octal() string { return fmt.Sprintf("%o", g.mode()) }

func (g generator) xattr() string {
	return pick(g, "user.x", "user.y", "trusted.z", "user.overlay.x")
}

// data is the short form of a string, see expand.
func (g generator) data() string {
	return fmt.Sprintf("%d*%c", pick(g, 1, 3, 10, 60, 60, 500, 5000, 9000), 'a'+rune(g.Intn(26)))
}

// expand makes 3*x to xxx.
func expand(data string) string {
	var n int
	var c rune
	if _, err := fmt.Sscanf(data, "%d*%c", &n, &c); err != nil {
		return data
	}
	return strings.Repeat(string(c), n)
}

func (g generator) offset() string {
	return fmt.Sprint(pick(g, 0, 0, 1, 5, 50, 100, 4096, 5000, 10000, 100000))
}

// slot is one of the few places where open files are kept.
func (g generator) slot() string { return fmt.Sprint(g.Intn(slots)) }
