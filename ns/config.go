package ns

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked up if the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// hostNameMax is HOST_NAME_MAX, the longest name that sethostname(2) takes, in bytes.
const hostNameMax = 64

// Process is a program in a container: its first one, or one that [Container.Exec] adds. Only Argv is required.
type Process struct {
	// Argv is the program and its arguments. A name without a slash is looked up in the PATH of Env, inside
	// the container.
	Argv []string

	// Env is the environment of the program. Only HOME is added, if it is missing: that of the user. See [DefaultEnv].
	Env []string

	// Dir is the working directory, an absolute path inside the container; "/" by default.
	Dir string

	// User is who it runs as: USER[:GROUP], each a name, which /etc/passwd and /etc/group of the container explain, or
	// a number. By default that is root, and the group is the user's.
	User string

	// Terminal gives the program a new terminal of the container's instead of Stdin, Stdout and Stderr. Its other end
	// is [Container.Terminal] or [Exec.Terminal].
	Terminal bool

	// Stdin, Stdout and Stderr are the program's first three descriptors. nil is the container's /dev/null.
	Stdin, Stdout, Stderr *os.File
}

// Config says what to launch. Root and Argv are required.
type Config struct {
	Process

	// Root is the descriptor of a detached mount, as fsmount(2) and open_tree(2) with OPEN_TREE_CLONE return
	// it; a single one, without mounts below it. It becomes the root of the container. The caller still owns
	// the descriptor, but a mount serves only one Start: once attached, it ends with its container.
	Root int

	// ReadOnly makes the root read-only.
	ReadOnly bool

	// RequireMountPoints makes the start fail if Root lacks one of [MountPoints]. By default, Start makes the
	// directories that are missing; in a union they are then in its upper layer, and count as changes.
	RequireMountPoints bool

	// Mounts are more file systems for the container. Those whose Path has fewer elements are mounted first.
	Mounts []Mount

	// Mask is a list of absolute paths of directories that the container must not look into. An empty, read-only
	// tmpfs is mounted on each. They must exist, and no part of a path may be a symbolic link.
	Mask []string

	// Hostname is the container's host name, at most 64 bytes; by default it starts with the host's.
	Hostname string

	// PrivateNetwork gives the container a network of its own, which has a loopback interface and leads nowhere.
	PrivateNetwork bool

	// Limits are resource limits, for each program of the container.
	Limits []Limit

	// Cgroup is the directory of a control group of version 2 that the container is to be in; nil for that of this process.
	// The caller still owns it.
	Cgroup *os.File

	Security

	// NestedUsers says that this process is not in the initial user namespace: there no device can be made, and the
	// host's /sys must do where the network is the host's. See [InInitialUserNamespace].
	NestedUsers bool

	// Users are the ids of a user namespace that the container gets for its own; without, it is in that of this process.
	// Root has to show the files that are the container's as those of these ids.
	Users *UserNamespace
}

// UserNamespace maps the ids in a user namespace to those outside, in that of the caller of [Start], who needs the
// privilege to do so: CAP_SETUID and CAP_SETGID over both, or to map its own ids only.
type UserNamespace struct {
	UIDs, GIDs []syscall.SysProcIDMap

	// UID and GID are who pid 1 of the container is. It has all privileges there, so 0 if that is mapped.
	UID, GID int
}

// nested reports whether the container is in a user namespace that is not the initial one.
func (cfg *Config) nested() bool { return cfg.NestedUsers || cfg.Users != nil }

// Mount is a file system that the container finds at Path: a detached mount, or if FS is set, a new one.
type Mount struct {
	Path string // absolute, in the container; what is missing of it is made; symbolic links do not lead out of the root

	FD        int  // a detached mount, of a directory or a file, which the caller owns
	Recursive bool // others are mounted below it

	FS      string   // "tmpfs"
	Options []string // of FS, for fsconfig(2): key or key=value

	Attr int // MOUNT_ATTR_*, which are set also of those below it
}

// Limit is a resource limit of setrlimit(2).
type Limit struct {
	Resource   int // RLIMIT_*
	Soft, Hard uint64
}

// Security says what the programs of a container may do. The zero value is for programs that need not be trusted: the
// capabilities, the system calls, and the files of /proc and /sys that Docker lets them have, and no more privileges
// by set-uid programs.
type Security struct {
	AddCaps, DropCaps []string // names as in capabilities(7), CAP_ may be left out; ALL; what is added wins, but over ALL
	NewPrivileges     bool     // programs may gain privileges by execve(2)
	AnySyscall        bool     // no filter of system calls
	Unmasked          bool     // all of /proc and /sys, and writable
	Privileged        bool     // all of these, and all capabilities
}

// DefaultEnv returns the environment that a program expects at least: PATH, and HOSTNAME and TERM if they are not
// empty.
func DefaultEnv(hostname, term string) []string {
	env := []string{"PATH=" + defaultPath}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if term != "" {
		env = append(env, "TERM="+term)
	}
	return env
}

// MountPoints returns the directories, relative to the root, on which Start always mounts something.
func MountPoints() []string { return []string{"dev", "proc", "sys"} }

// InInitialUserNamespace reports whether this process is in the user namespace that all others descend from.
func InInitialUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

// bad is the error for a configuration that cannot be right.
func bad(err error, fix string) error { return &Error{Step: "configure", Err: err, Fix: fix} }

// check finds what is wrong with the configuration itself.
func (cfg *Config) check() error {
	// Without syncing: this process may serve the root, and must not wait for itself. If it were killed then it would for
	// ever, since the device stays open as long as one of its threads waits for an answer.
	var st unix.Statx_t
	if err := unix.Statx(cfg.Root, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return bad(fmt.Errorf("root descriptor %d: %w", cfg.Root, err), "pass an open descriptor of a detached mount")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return bad(fmt.Errorf("root descriptor %d: %w", cfg.Root, syscall.ENOTDIR), "mount a directory tree")
	}
	for _, dir := range cfg.Mask {
		if !strings.HasPrefix(dir, "/") || path.Clean(dir) == "/" {
			return bad(fmt.Errorf("cannot mask %q", dir), "give the absolute path of a directory below the root")
		}
	}
	for _, m := range cfg.Mounts {
		if !strings.HasPrefix(m.Path, "/") || path.Clean(m.Path) == "/" {
			return bad(fmt.Errorf("cannot mount on %q", m.Path), "give an absolute path below the container's root")
		}
	}
	if len(cfg.Hostname) > hostNameMax {
		return bad(fmt.Errorf("host name of %d bytes", len(cfg.Hostname)), fmt.Sprintf("%d are the most", hostNameMax))
	}
	if err := zeroBytes(cfg.Mask, []string{cfg.Hostname}); err != nil {
		return err
	}
	if _, err := cfg.capabilities(); err != nil {
		return err
	}
	if err := cfg.Users.check(); err != nil {
		return err
	}
	return cfg.Process.check()
}

func (p *Process) check() error {
	if len(p.Argv) == 0 || p.Argv[0] == "" {
		return bad(errors.New("no program"), "name the program to run")
	}
	if p.Dir != "" && !strings.HasPrefix(p.Dir, "/") {
		return bad(fmt.Errorf("working directory %q is relative", p.Dir), "give it from the container's root")
	}
	for _, kv := range p.Env {
		if strings.IndexByte(kv, '=') <= 0 {
			return bad(fmt.Errorf("environment variable %q", kv), "write it as NAME=VALUE")
		}
	}
	return zeroBytes(p.Argv, p.Env, []string{p.Dir, p.User})
}

func zeroBytes(lists ...[]string) error {
	for _, s := range slices.Concat(lists...) {
		if strings.IndexByte(s, 0) >= 0 {
			return bad(fmt.Errorf("%q holds a zero byte", s), "leave it out")
		}
	}
	return nil
}

// lookEnv returns the value of a variable, the last one if there are several, as a shell would.
func lookEnv(env []string, name string) (string, bool) {
	for _, kv := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// searchPath returns the PATH of an environment.
func searchPath(env []string) string {
	if search, ok := lookEnv(env, "PATH"); ok {
		return search
	}
	return defaultPath
}
