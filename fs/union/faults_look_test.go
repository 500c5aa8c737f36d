package union_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// patiently does again what fails because a child that was just started still holds copies of all descriptors, which
// takes a moment.
func patiently(f func() error) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// useDirectories makes a file in each directory of a union and removes it.
func useDirectories(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := os.WriteFile(path+"/used", nil, 0o600); err != nil {
			return err
		}
		return os.Remove(path + "/used")
	})
}

// distantFuture makes fingerprints tell all times.
var distantFuture = time.Unix(1<<40, 0)

// shows is the tree that a union shows, with the times of all but directories, which are restored after a copy-up as
// well as can be.
func shows(dir string) string {
	tree := testfs.Read(dir, testfs.Options{Since: distantFuture})
	recent := time.Now().Add(-time.Hour)
	for i := range tree {
		e := &tree[i]
		if e.New = e.MTime.After(recent); e.New || e.Kind == testfs.Dir {
			e.MTime = time.Time{}
			e.New = e.New && e.Kind != testfs.Dir
		}
	}
	return tree.String()
}

// onDisk is all that is in the given layers.
func onDisk(dirs []string) string {
	var all strings.Builder
	for _, dir := range dirs {
		all.WriteString(testfs.Fingerprint(dir, testfs.Options{Since: distantFuture}))
	}
	return all.String()
}

func numbered(calls []string) string {
	var b strings.Builder
	for i, c := range calls {
		fmt.Fprintf(&b, "%d %s, ", i+1, c)
	}
	return b.String()
}

// parseOld reads a tree whose times are long ago.
func parseOld(t testing.TB, text string) testfs.Tree {
	t.Helper()
	tree, err := testfs.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tree {
		if tree[i].Kind != testfs.Hardlink {
			tree[i].MTime = time.Unix(1_000_000_000+int64(i), 0)
		}
	}
	return tree
}
