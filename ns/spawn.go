package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawn starts a process of the container with the descriptors stdio, and returns its pid. An error is a *stepError.
//
// The kernel keeps working directory, capabilities, and filters of system calls for each thread, and a child has those
// of the thread that forks. So a thread of init is made to be as the program should be, forks, and ends: no program in
// between is needed that has one foot in the container, and that the container could attack.
func (c confinement) spawn(p process, stdio [3]uintptr) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock, so the thread ends with the goroutine
		pid, err := c.spawnOnThread(p, stdio)
		done <- result{pid, err}
	}()
	r := <-done
	return r.pid, r.err
}

// Preconditions: the goroutine is locked to its thread, which is of no further use.
func (c confinement) spawnOnThread(p process, stdio [3]uintptr) (int, error) {
	user, err := findUser(string(p.User))
	if err != nil {
		return 0, &stepError{op{Verb: verbUser, Target: p.User}, err}
	}
	env := fromRaw(p.Env)
	if _, ok := lookEnv(env, "HOME"); !ok {
		env = append(env, "HOME="+user.home)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return 0, &stepError{op{Verb: verbChdir, Path: p.Dir}, fmt.Errorf("unshare: %w", err)}
	}
	if err := chdir(string(p.Dir)); err != nil {
		return 0, &stepError{op{Verb: verbChdir, Path: p.Dir}, err}
	}
	if err := user.own(stdio, p.Terminal); err != nil {
		return 0, &stepError{op{Verb: verbConfine}, err}
	}
	if err := c.confine(); err != nil {
		return 0, &stepError{op{Verb: verbConfine}, err}
	}
	argv := fromRaw(p.Argv)
	exec := op{Verb: verbExec, Target: p.Argv[0]}
	file, err := lookPath(argv[0], searchPath(env))
	if err != nil {
		return 0, &stepError{exec, err}
	}
	pid, err := syscall.ForkExec(file, argv, &syscall.ProcAttr{
		Env:   env,
		Files: stdio[:],
		Sys: &syscall.SysProcAttr{
			Credential: user.credential(),
			Setsid:     p.Session || p.Terminal,
			Setctty:    p.Terminal, // descriptor 0
		},
	})
	if err != nil {
		if _, serr := os.Stat(file); err == syscall.ENOENT && serr == nil {
			err = fmt.Errorf("its interpreter or loader: %w", err)
		}
		return 0, &stepError{exec, pathError("exec", file, err)}
	}
	return pid, nil
}

// confine makes this thread what the programs of the container may be. It keeps what it needs to become another user;
// the program loses that at execve(2), which leaves it what is in the bounding set, and no more than nothing unless it
// is root.
func (c confinement) confine() error {
	// The keys of whoever started the container are not for it.
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && err != unix.ENOSYS {
		return fmt.Errorf("session keyring: %w", err)
	}
	if err := c.Caps.bound(); err != nil {
		return err
	}
	if c.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	if len(c.Filter) > 0 {
		return install(c.Filter)
	}
	return nil
}

// chdir changes the working directory to dir, which must be a place in the container: through a descriptor in
// /proc/self/fd it could be elsewhere.
func chdir(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return pathError("chdir", dir, err)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return pathError("getcwd", dir, err)
	}
	if n == 0 || buf[0] != '/' { // "(unreachable)/…", see getcwd(2)
		return pathError("chdir", dir, errors.New("not in the container"))
	}
	return nil
}

// lookPath finds the executable file that a shell would take for name. EACCES means that there are files of that
// name in the search path, but none that is executable.
func lookPath(name, search string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	cause := error(syscall.ENOENT)
	for _, dir := range filepath.SplitList(search) {
		file := filepath.Join(dir, name) // an empty dir is the working directory
		switch st, err := os.Stat(file); {
		case errors.Is(err, syscall.EACCES):
			cause = syscall.EACCES
		case err != nil:
		case st.Mode().IsRegular() && st.Mode()&0o111 != 0:
			return file, nil
		default:
			cause = syscall.EACCES
		}
	}
	return "", pathError("exec", name, fmt.Errorf("%w in PATH (%s)", cause, search))
}
