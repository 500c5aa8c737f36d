package layer

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tiny opens a directory as a layer that keeps at most limit directories open.
func tiny(t *testing.T, limit int) *Layer {
	l, err := openUpper("layer", t.TempDir(), &budget{limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Root.Close() })
	return l
}

func TestBudgetReopensWhatItClosed(t *testing.T) {
	const limit, dirs = 4, 40
	l := tiny(t, limit)
	var opened []*Dir
	at := l.Root
	for i := range dirs { // a chain, so that a parent has to be opened again first
		name := fmt.Sprint(i)
		if err := at.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		sub, err := at.OpenDir(name)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		opened = append(opened, sub)
		at = sub
	}
	if n := len(l.budget.ring); n > limit+1 {
		t.Errorf("%d directories are open, the limit is %d", n, limit)
	}
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for i := range 200 {
				d := opened[(i*7)%dirs]
				var st unix.Stat_t
				if err := d.Self().Stat(&st); err != nil || st.Ino != d.ino {
					t.Errorf("directory %s: inode %d, %v; want %d", d.name, st.Ino, err, d.ino)
				}
			}
		})
	}
	users.Wait()
}

func TestBudgetAndChanges(t *testing.T) {
	l := tiny(t, 1)
	open := func(name string) *Dir {
		if err := l.Root.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		d, err := l.Root.OpenDir(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	closed := func(d *Dir) {
		t.Helper()
		for i := 0; d.fd >= 0 && i < 8; i++ { // others come, and it goes
			open(fmt.Sprintf("%s-%d", d.name, i))
		}
		if d.fd >= 0 {
			t.Fatalf("%s is still open", d.name)
		}
	}
	use := func(d *Dir) error {
		var st unix.Stat_t
		return d.Self().Stat(&st)
	}

	moved, removed, replaced := open("moved"), open("removed"), open("replaced")

	if _, err := moved.Hold(); err != nil {
		t.Fatal(err)
	}
	if err := l.Root.Rename("moved", l.Root, "elsewhere", 0); err != nil {
		t.Fatal(err)
	}
	moved.Moved(l.Root, "elsewhere")
	moved.Done()
	closed(moved)
	if err := use(moved); err != nil {
		t.Errorf("a moved directory: %v", err)
	}

	if err := errors.Join(removed.Pin(), l.Root.Rmdir("removed")); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		open(fmt.Sprintf("more-%d", i))
	}
	if err := use(removed); err != nil {
		t.Errorf("a removed directory: %v", err)
	}

	closed(replaced)
	if err := errors.Join(os.Rename(l.Path+"/replaced", l.Path+"/gone"), os.Mkdir(l.Path+"/replaced", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := use(replaced); err != unix.ESTALE {
		t.Errorf("another directory of the name: %v, want ESTALE", err)
	}
}
