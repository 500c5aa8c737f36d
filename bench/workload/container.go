package workload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// HelloName is the name under which a program of the container workloads is started: it calls [Hello].
const HelloName = "unionfsd-bench-hello"

// Hello is a program in a container: it says one byte, and waits until its input ends.
func Hello() int {
	if _, err := os.Stdout.Write([]byte{'!'}); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // the end is what it waits for
	return 0
}

// image is one layer with a program of some megabytes, which needs no library, and a file of 64 MiB.
var image = Recipe{Name: "image", Build: func(b *Builder) error {
	dir, err := b.Layer()
	if err != nil {
		return err
	}
	if err := copyFile(b.Program, filepath.Join(dir, "hello"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "proc"), 0o755); err != nil {
		return err
	}
	return writeNoise(filepath.Join(dir, "library"), b.Scale.Bytes(64))
}}

// container-start: what a user waits for: mount the image, enter it in namespaces of its own, start the program.
func init() {
	register(func() Workload {
		return Workload{
			Name: "container-start", Group: "real",
			Doc:    "mount an image and start a program in it, until its first byte of output",
			Layers: image,
			Steps: []Step{{
				Name: "container-start", PlusMount: true,
				Run: func(e *Env) (int, error) {
					c, err := enter(e.Dir)
					if err != nil {
						return 0, err
					}
					return 1, c.leave()
				},
			}},
		}
	})

	// containers-20: a node of a cluster. Containers of the same image should share its page cache.
	register(func() Workload {
		const count = 20
		return Workload{
			Name: "containers-20", Group: "real",
			Doc:    "20 unions over the same image, a program running in each, a file of 64 MiB read in each: memory, page cache",
			Layers: image, Mounts: count,
			Steps: []Step{{
				Name: "containers-20", Cold: true, Memory: "containers-20-memory", PageCache: "containers-20-cache",
				Run: func(e *Env) (int, error) {
					var running []*container
					defer func() {
						for _, c := range running {
							_ = c.leave()
						}
					}()
					buf := make([]byte, 128<<10)
					for _, dir := range e.Dirs {
						c, err := enter(dir)
						if err != nil {
							return 0, err
						}
						running = append(running, c)
						if _, err := readFile(filepath.Join(dir, "library"), buf); err != nil {
							return 0, err
						}
					}
					return len(e.Dirs), nil
				},
			}},
		}
	})
}

type container struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// enter starts the program of the image with dir as its root, in new namespaces, and returns when it has spoken.
func enter(dir string) (*container, error) {
	cmd := &exec.Cmd{Path: "/hello", Args: []string{HelloName}, Dir: "/", Env: []string{}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     dir,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a program in %s: %w", dir, err)
	}
	c := &container{cmd, stdin}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("a program in %s said nothing: %w", dir, err), c.leave())
	}
	return c, nil
}

// leave ends the program.
func (c *container) leave() error {
	c.stdin.Close()
	return c.cmd.Wait()
}
