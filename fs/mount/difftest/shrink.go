package difftest

import (
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/fs/mount/mounttest"
)

// Shrink returns a smaller case that fails in the same way as c, which failed with f, and its failure. It gives up
// after d.
func Shrink(t testing.TB, a, b *mounttest.Server, c Case, f *Failure, d time.Duration) (Case, *Failure) {
	end := time.Now().Add(d)
	// fails takes over a case if it fails like f.
	fails := func(try Case) bool {
		if time.Now().After(end) {
			return false
		}
		got, err := Run(t, a, b, try)
		if err != nil || got == nil || got.kind() != f.kind() {
			return false
		}
		c, f = try, got
		return true
	}
	c.Ops = c.Ops[:f.After]
	minimize(len(c.Ops), func(keep []int) bool { return fails(c.with(c.Lower, choose(c.Ops, keep))) }, func() int { return len(c.Ops) })
	for i := len(c.Lower) - 1; i >= 0 && len(c.Lower) > 1; i-- {
		fails(c.with(append(append([]string{}, c.Lower[:i]...), c.Lower[i+1:]...), c.Ops))
	}
	for i := range c.Lower {
		lines := func() []string { return strings.Split(strings.TrimSuffix(c.Lower[i], "\n"), "\n") }
		minimize(len(lines()), func(keep []int) bool {
			lower := append([]string{}, c.Lower...)
			lower[i] = strings.Join(choose(lines(), keep), "\n") + "\n"
			return fails(c.with(lower, c.Ops))
		}, func() int { return len(lines()) })
	}
	return c, f
}

// with is c with other layers and operations.
func (c Case) with(lower []string, ops []Op) Case {
	return Case{Lower: lower, Options: c.Options, Ops: ops}
}

// minimize is delta debugging: it asks try to keep fewer and fewer of n elements, larger pieces left out first. try
// takes over what it accepts, and length tells how many elements that has.
func minimize(n int, try func(keep []int) bool, length func() int) {
	for size := max(n/2, 1); ; size = max(size/2, 1) {
		removed := false
		for from := length(); from > 0; from -= size {
			var keep []int
			for i := range length() {
				if i < from-size || i >= from {
					keep = append(keep, i)
				}
			}
			removed = try(keep) || removed
		}
		if size == 1 && !removed {
			return
		}
	}
}

func choose[T any](list []T, keep []int) []T {
	out := make([]T, len(keep))
	for i, k := range keep {
		out[i] = list[k]
	}
	return out
}
