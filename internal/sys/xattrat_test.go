package sys

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/testfs"
)

// TestGetxattrat compares the two ways to read an attribute of a name.
func TestGetxattrat(t *testing.T) {
	if !haveGetxattrat() {
		testfs.Skip(t, "this kernel has no getxattrat(2)")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := Setxattr(fd, "f", "user.x", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "link", "none", "."} {
		for _, attr := range []string{"user.x", "user.y", "bad"} {
			for _, size := range []int{0, 3, 5, 100} {
				a, b := make([]byte, size), make([]byte, size)
				n, errN := getxattrat(fd, name, attr, a)
				m, errM := unix.Lgetxattr(ProcPath(fd, name), attr, b)
				if n != m || errN != errM || string(a) != string(b) {
					t.Errorf("%s of %s into %d bytes: %d %v %q by the directory, %d %v %q by path", attr, name, size, n, errN, a, m, errM, b)
				}
			}
		}
	}
}
