package ns

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// account is who a program runs as.
type account struct {
	uid, gid int
	groups   []int
	home     string
}

// findUser looks USER[:GROUP] up in the container that this process is in. Files that are missing say nothing, and
// then numbers must do.
func findUser(spec string) (account, error) {
	passwd, err := readDatabase("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := readDatabase("/etc/group")
	if err != nil {
		return account{}, err
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return account{}, err
	}
	a := account{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}
	if a.uid == 0 && a.home == "/" {
		a.home = "/root"
	}
	return a, nil
}

// maxDatabase is the largest /etc/passwd that is read into the memory of pid 1.
const maxDatabase = 4 << 20

// readDatabase reads a file that the container may have made anything of.
func readDatabase(name string) (io.Reader, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if os.IsNotExist(err) {
		return strings.NewReader(""), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxDatabase+1))
	if err == nil && len(text) > maxDatabase {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxDatabase>>20)
	}
	return bytes.NewReader(text), err
}

// credential is what a child becomes before it executes its program.
func (a account) credential() *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), NoSetGroups: mustKeepGroups()}
	for _, g := range a.groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

// mustKeepGroups reports whether setgroups(2) is forbidden: in a user namespace that an ordinary user has made without
// help, since a group can also be what keeps somebody out (user_namespaces(7)).
func mustKeepGroups() bool {
	text, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(text)) == "deny"
}

// own gives the descriptors that were made for the program to the user, who else could not open /dev/stdout: pipes, and
// the container's own terminal. A terminal of the host's stays whose it is.
func (a account) own(stdio [3]uintptr, terminal bool) error {
	if a.uid == 0 {
		return nil
	}
	for _, fd := range stdio {
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
		if !terminal && st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		// EPERM, EINVAL: a pipe of somebody who is not in this user namespace.
		if err := unix.Fchown(int(fd), a.uid, -1); err != nil && err != unix.EPERM && err != unix.EINVAL {
			return fmt.Errorf("give descriptor %d to uid %d: %w", fd, a.uid, err)
		}
	}
	return nil
}
