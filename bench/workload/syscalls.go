package workload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/internal/sys"
)

// open is open(2), with the path in the error.
func open(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err == unix.EINTR {
			continue
		}
		return fd, wrap("open", path, err)
	}
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

// forEach calls f for each path and returns how many there were.
func forEach(op string, paths []string, f func(path string) error) (int, error) {
	for _, path := range paths {
		if err := f(path); err != nil {
			return 0, wrap(op, path, err)
		}
	}
	return len(paths), nil
}

// readAll reads fd from where it stands to its end, and returns how much that was.
func readAll(fd int, buf []byte) (int64, error) {
	var total int64
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return total, err
		}
		total += int64(n)
	}
}

// readFile reads the file as cat(1) does, and returns its size.
func readFile(path string, buf []byte) (int64, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := readAll(fd, buf)
	return n, wrap("read", path, err)
}

// writeFull is pwrite(2) of all of b.
func writeFull(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// visitor is called for each entry of a tree, with the directory it is in.
type visitor func(dirfd int, dir, name string, kind uint8) error

// walk visits the tree at path, a directory before what is in it, as find(1) does. It returns the number of entries.
func walk(path string, visit visitor) (int, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return walkFD(fd, path, visit)
}

func walkFD(dirfd int, path string, visit visitor) (int, error) {
	count := 0
	var dirs []string
	err := sys.Dirents(dirfd, func(e sys.Dirent) error {
		name := string(e.Name)
		count++
		if e.Type == unix.DT_DIR {
			dirs = append(dirs, name)
		}
		return visit(dirfd, path, name, e.Type)
	})
	if err != nil {
		return 0, wrap("read directory", path, err)
	}
	for _, name := range dirs {
		fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, wrap("open", path+"/"+name, err)
		}
		n, err := walkFD(fd, path+"/"+name, visit)
		unix.Close(fd)
		if err != nil {
			return 0, err
		}
		count += n
	}
	return count, nil
}

// lstatAt is a visitor that does what find(1) and ls(1) do with each name.
func lstatAt(dirfd int, _, name string, _ uint8) error {
	var st unix.Stat_t
	return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
}

// lstat is lstat(2).
func lstat(path string) error {
	var st unix.Stat_t
	return unix.Lstat(path, &st)
}

// parallel runs f in n threads and returns the sum of what they did.
func parallel(n int, f func(i int) (int, error)) (int, error) {
	var wg sync.WaitGroup
	counts, errs := make([]int, n), make([]error, n)
	for i := range n {
		wg.Go(func() { counts[i], errs[i] = f(i) })
	}
	wg.Wait()
	total := 0
	for _, c := range counts {
		total += c
	}
	return total, errors.Join(errs...)
}

// command runs a program and returns what it wrote on its standard output. Its last words are in the error.
func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", name, err, lines[len(lines)-1])
	}
	return stdout.String(), nil
}

// copyFile copies what a regular file holds and its mode.
func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// expect returns an error unless the step saw as many as there are.
func expect(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("saw %d %s, there are %d", got, what, want)
	}
	return nil
}
