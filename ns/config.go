package ns

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked up if the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// hostNameMax is HOST_NAME_MAX, the longest name that sethostname(2) takes, in bytes.
const hostNameMax = 64

// Config says what to launch. Root and Argv are required.
type Config struct {
	// Root is the descriptor of a detached mount, as fsmount(2) and open_tree(2) with OPEN_TREE_CLONE return
	// it; a single one, without mounts below it. It becomes the root of the container. The caller still owns
	// the descriptor, but a mount serves only one Start: once attached, it ends with its container.
	Root int

	// ReadOnly makes the root read-only.
	ReadOnly bool

	// RequireMountPoints makes the start fail if Root lacks one of [MountPoints]. By default, Start makes the
	// directories that are missing; in a union they are then in its upper layer, and count as changes.
	RequireMountPoints bool

	// Mask is a list of absolute paths of directories that the container must not look into. An empty, read-only
	// tmpfs is mounted on each. They must exist, and no part of a path may be a symbolic link.
	Mask []string

	// Argv is the program and its arguments. A name without a slash is looked up in the PATH of Env, inside
	// the container.
	Argv []string

	// Env is the whole environment of the program; nothing is added to it. See [DefaultEnv].
	Env []string

	// Dir is the working directory, an absolute path inside the container; "/" by default.
	Dir string

	// Hostname is the container's host name, at most 64 bytes; by default it starts with the host's.
	Hostname string

	// Stdin, Stdout and Stderr are the program's first three descriptors. nil is the container's /dev/null.
	Stdin, Stdout, Stderr *os.File
}

// DefaultEnv returns the environment that a program expects at least: PATH, HOME, and HOSTNAME and TERM if they are
// not empty.
func DefaultEnv(hostname, term string) []string {
	env := []string{"PATH=" + defaultPath, "HOME=/root"}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if term != "" {
		env = append(env, "TERM="+term)
	}
	return env
}

// MountPoints returns the directories, relative to the root, on which Start mounts something.
func MountPoints() []string { return []string{"dev", "proc", "sys"} }

// check finds what is wrong with the configuration itself.
func (cfg *Config) check() error {
	bad := func(err error, fix string) error { return &Error{Step: "configure", Err: err, Fix: fix} }

	var st unix.Stat_t
	if err := unix.Fstat(cfg.Root, &st); err != nil {
		return bad(fmt.Errorf("root descriptor %d: %w", cfg.Root, err), "pass an open descriptor of a detached mount")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return bad(fmt.Errorf("root descriptor %d: %w", cfg.Root, syscall.ENOTDIR), "mount a directory tree")
	}
	if len(cfg.Argv) == 0 || cfg.Argv[0] == "" {
		return bad(errors.New("no program"), "name the program to run")
	}
	if cfg.Dir != "" && !strings.HasPrefix(cfg.Dir, "/") {
		return bad(fmt.Errorf("working directory %q is relative", cfg.Dir), "give it from the container's root")
	}
	for _, dir := range cfg.Mask {
		if !strings.HasPrefix(dir, "/") || path.Clean(dir) == "/" {
			return bad(fmt.Errorf("cannot mask %q", dir), "give the absolute path of a directory below the root")
		}
	}
	if len(cfg.Hostname) > hostNameMax {
		return bad(fmt.Errorf("host name of %d bytes", len(cfg.Hostname)), fmt.Sprintf("%d are the most", hostNameMax))
	}
	for _, kv := range cfg.Env {
		if strings.IndexByte(kv, '=') <= 0 {
			return bad(fmt.Errorf("environment variable %q", kv), "write it as NAME=VALUE")
		}
	}
	for _, list := range [][]string{cfg.Argv, cfg.Env, cfg.Mask, {cfg.Dir, cfg.Hostname}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return bad(fmt.Errorf("%q holds a zero byte", s), "leave it out")
			}
		}
	}
	return nil
}

// searchPath returns the PATH of an environment, the last one if there are several, as a shell would.
func searchPath(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return value
		}
	}
	return defaultPath
}
