package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	subid "github.com/moby/sys/user"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unionfsd/unionfsd/ns"
)

// An ordinary user may do nothing of what a container takes, but in a user namespace of their own, where they are root.
// So this command runs itself again in there, word by word, and all else is as it is for root:
//
//	unionfsd run     ──clones──> unionfsd-rootless    waits until its ids are mapped, and executes
//	                             unionfsd run         the command, with all capabilities over what is in there
//
// The ids that are mapped besides the user's own are those that /etc/subuid and /etc/subgid lend, if newuidmap(1) is
// there to see to it. Without them there is root only.

// rootlessName is the name under which unionfsd starts itself in a user namespace. The arguments are those of the command.
const rootlessName = "unionfsd-rootless"

// rootlessFD is where it is told to go on.
const rootlessFD = 3

// idRange is a line of uid_map (user_namespaces(7)).
type idRange struct{ inside, outside, count int64 }

// asRoot runs this command again where this user is root, unless this process is root, or in a user namespace, already.
// It reports whether it did, and with what exit code.
func (a *app) asRoot() (done bool, err error) {
	if os.Geteuid() == 0 || !ns.InInitialUserNamespace() {
		return false, nil
	}
	code, err := a.rootless()
	if err == nil && code == 0 {
		return true, nil
	}
	return true, &exitError{code, err}
}

// command is what a command runs.
type command = func(cmd *cobra.Command, args []string) error

// onLayers is for commands that read or write layers of images. They are run by who is root, at least in a user namespace, since
// what is in layers may belong to other users; and the first signal that ends them undoes what they have begun, while the
// second ends them without that.
func (a *app) onLayers(run command) command {
	return func(cmd *cobra.Command, args []string) error {
		if done, err := a.asRoot(); done {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), endSignals()...)
		defer stop()
		context.AfterFunc(ctx, stop)
		cmd.SetContext(ctx)
		err := run(cmd, args)
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("%s: nothing is changed: %w", cmd.Name(), context.Cause(ctx))
		}
		return err
	}
}

func (a *app) rootless() (code int, err error) {
	root, err := a.state()
	if err != nil {
		return exitSelf, err
	}
	uids, gids, err := subordinate()
	if err != nil {
		return exitSelf, err
	}
	runtime.LockOSThread() // the child dies with this thread; see Pdeathsig
	defer runtime.UnlockOSThread()
	wait, goOn, err := os.Pipe()
	if err != nil {
		return exitSelf, err
	}
	defer goOn.Close()
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	single := len(uids) == 0 || len(gids) == 0
	if single {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		a.verbosef("no ids besides %d: /etc/subuid lends none, or newuidmap is not installed", os.Getuid())
	}
	// The state root of this user is not the one of root, which the child will be.
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{rootlessName, "--root", root.Dir()}, os.Args[1:]...),
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		ExtraFiles:  []*os.File{wait},
		SysProcAttr: attr,
	}
	err = cmd.Start()
	wait.Close()
	if err != nil {
		return exitSelf, usernsError(err)
	}
	defer func() {
		if err != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	go func() {
		for s := range signals {
			switch s {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT, syscall.SIGWINCH:
			case syscall.SIGINT, syscall.SIGQUIT:
				if !ns.InForeground() {
					_ = cmd.Process.Signal(s)
				}
			default:
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	if !single {
		err = errors.Join(writeMap("newuidmap", cmd.Process.Pid, uids), writeMap("newgidmap", cmd.Process.Pid, gids))
	}
	if err != nil {
		return exitSelf, err
	}
	goOn.Write([]byte{1}) // if nobody reads it, Wait tells more
	goOn.Close()
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil // it has told why
	}
	return 0, err
}

// continueRootless is the first thing that the child does: it waits until its ids are mapped. It had to give up its
// capabilities when it was executed, unless they were mapped before; to be executed again as root gives them back.
func continueRootless() {
	wait := os.NewFile(rootlessFD, "wait")
	_, err := io.ReadFull(wait, make([]byte, 1))
	wait.Close()
	if err != nil {
		os.Exit(exitSelf) // whoever started this is gone
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "unionfsd: the ids of the user namespace are not as they should be")
		os.Exit(exitSelf)
	}
	if !hasAllCapabilities() {
		err := syscall.Exec("/proc/self/exe", append([]string{rootlessAgainName}, os.Args[1:]...), os.Environ())
		fmt.Fprintln(os.Stderr, "unionfsd: execute again:", err)
		os.Exit(exitSelf)
	}
	beginRootless()
}

// rootlessAgainName is the name of the child that has been executed again.
const rootlessAgainName = "unionfsd-rootless-mapped"

// beginRootless makes this process the command that it is to be. It dies with the one that started it: what that was to
// see to (Pdeathsig) the kernel has forgotten when it gave capabilities back.
func beginRootless() {
	os.Args[0] = "unionfsd"
	runtime.LockOSThread()
	parent := os.Getppid()
	if unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) != nil || os.Getppid() != parent {
		os.Exit(exitSelf)
	}
}

func hasAllCapabilities() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// subordinate returns the maps with the ids that are lent to this user; none if there are none, or nobody to map them.
func subordinate() (uids, gids []idRange, err error) {
	id := strconv.Itoa(os.Getuid())
	u, err := user.LookupId(id)
	if err != nil { // not in /etc/passwd; then the number must do
		u = &user.User{Uid: id, Username: id}
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, nil, nil
		}
	}
	uids, err = lent("/etc/subuid", u, int64(os.Getuid()))
	if err != nil {
		return nil, nil, err
	}
	gids, err = lent("/etc/subgid", u, int64(os.Getgid()))
	return uids, gids, err
}

// lent maps root to id and those that file lends to u to the ids from 1 on.
func lent(file string, u *user.User, id int64) ([]idRange, error) {
	ranges, err := subid.ParseSubIDFileFilter(file, func(s subid.SubID) bool { return s.Name == u.Username || s.Name == u.Uid })
	if errors.Is(err, os.ErrNotExist) || err == nil && len(ranges) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	m := []idRange{{0, id, 1}}
	next := int64(1)
	for _, r := range ranges {
		count := min(r.Count, math.MaxUint32-next)
		m = append(m, idRange{next, r.SubID, count})
		next += count
	}
	return m, nil
}

// writeMap lets newuidmap(1) or newgidmap(1) map ids, which may do so for those that are lent.
func writeMap(tool string, pid int, m []idRange) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range m {
		for _, n := range []int64{r.inside, r.outside, r.count} {
			args = append(args, strconv.FormatInt(n, 10))
		}
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s; correct /etc/subuid and /etc/subgid", tool, err, oneLine(string(out)))
	}
	return nil
}

func usernsError(err error) error {
	if perr, ok := errors.AsType[*os.PathError](err); ok {
		err = perr.Err
	}
	return fmt.Errorf("make a user namespace: %w; run as root, or see unionfsd doctor for what forbids it", err)
}
