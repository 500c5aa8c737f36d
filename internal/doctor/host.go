package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// userNamespaces makes a user and a mount namespace for a program that does not exist: ENOENT means that all went
// well until then.
func userNamespaces() Check {
	const name = "user namespaces"
	proc, err := os.StartProcess("/proc/self/no such program", []string{"probe"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	})
	switch {
	case err == nil:
		proc.Kill()
		proc.Wait()
		return fail(name, "", "a program that does not exist was started")
	case errors.Is(err, unix.ENOENT):
	case errors.Is(err, unix.ENOSPC):
		return warn(name, "sysctl user.max_user_namespaces=15000", "the limit is reached")
	case errors.Is(err, unix.EINVAL):
		return warn(name, "use a kernel with CONFIG_USER_NS", "not in this kernel")
	default:
		return warn(name, "sysctl kernel.unprivileged_userns_clone=1; in a container, allow it in the seccomp profile", "cannot be made: %v", cause(err))
	}
	if text := readSysctl("kernel/unprivileged_userns_clone"); text == "0" {
		return warn(name, "sysctl kernel.unprivileged_userns_clone=1", "only root can make them")
	}
	return ok(name, "can be made")
}

func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// appArmor looks for the setting of Ubuntu that lets users make user namespaces, but do nothing in them.
func appArmor() Check {
	const name = "apparmor"
	const knob = "kernel.apparmor_restrict_unprivileged_userns"
	if readSysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return warn(name, "sysctl "+knob+"=0, or a profile for unionfsd with the rule userns", "users have no rights in their user namespaces")
	}
	return ok(name, "does not restrict user namespaces")
}

// readSysctl returns a setting, and nothing where there is none.
func readSysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// subordinateIDs looks for the ids that a user namespace of this user may map besides the user's own.
func subordinateIDs() Check {
	const name = "subuid"
	u, err := user.Current()
	if err != nil {
		return warn(name, "", "who am I: %v", err)
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return warn(name, "apt-get install uidmap, or what your distribution calls it", "%s is not installed", tool)
		}
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !hasRange(file, u) {
			fix := fmt.Sprintf("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username)
			return warn(name, fix, "%s has no range for %s", file, u.Username)
		}
	}
	return ok(name, "%s has ranges of its own", u.Username)
}

// hasRange looks for a line USER:START:COUNT or UID:START:COUNT (subuid(5)).
func hasRange(file string, u *user.User) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(text), "\n") {
		owner, _, found := strings.Cut(line, ":")
		if found && (owner == u.Username || owner == u.Uid) {
			return true
		}
	}
	return false
}

// cgroups tells whether version 2 has the controllers that limits need.
func cgroups() Check {
	const name = "cgroups"
	const unified = "boot with systemd.unified_cgroup_hierarchy=1"
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		return warn(name, "mount -t cgroup2 none /sys/fs/cgroup", "not mounted")
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return warn(name, unified, "version 1; limits need version 2")
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return warn(name, "", "%v", err)
	}
	return ok(name, "version 2: %s", strings.TrimSpace(string(controllers)))
}

// initialUserNS reports whether all ids are mapped, as they are on the host.
func initialUserNS() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}
