package ns

import (
	"errors"
	"fmt"
	"syscall"
)

// Exit codes of a launcher that could not run the program, as those of env(1), of shells, and of docker run.
const (
	ExitFailed     = 125 // the container could not be made
	ExitCannotExec = 126 // the program is there but cannot be executed
	ExitNotFound   = 127 // the program is not there
)

// Error is why a container did not start: the step that failed, and what to do about it. Nothing of the container
// is left.
type Error struct {
	Step string // in a few words: "mount proc on /proc", "exec sh"
	Path string // the object concerned, inside the container; empty if there is none
	Err  error  // the cause; matches a syscall.Errno if the kernel gave one
	Fix  string // what to do; empty if that depends

	code int
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Step, e.Err)
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns what a command that could not start its container exits with: [ExitNotFound] and
// [ExitCannotExec] if everything was ready but the program, else [ExitFailed].
func (e *Error) ExitCode() int {
	if e.code == 0 {
		return ExitFailed
	}
	return e.code
}

// cause is an error told by another process: its text, and the errno for errors.Is.
type cause struct {
	text  string
	errno syscall.Errno
}

func (c *cause) Error() string { return c.text }

func (c *cause) Unwrap() error {
	if c.errno == 0 {
		return nil
	}
	return c.errno
}

// newError turns what init reported into the error that Start returns.
func newError(f *failure) *Error {
	e := &Error{Step: f.Op.name(), Path: string(f.Path), Err: &cause{f.Text, f.Errno}, Fix: fix(f.Op, string(f.Path), f.Errno)}
	if f.Op.Verb == verbExec {
		switch f.Errno {
		case syscall.ENOENT:
			e.code = ExitNotFound
		case syscall.EINVAL: // setuid(2): it did not come to the program
		default:
			e.code = ExitCannotExec
		}
	}
	return e
}

// fix returns what to do when step o failed with errno on path.
func fix(o op, path string, errno syscall.Errno) string {
	switch {
	case errno == syscall.ENOSYS, errno == syscall.EINVAL && o.Verb == verbInit:
		return "Linux 5.12 or later is needed"
	case errno == syscall.EPERM && o.Verb != verbExec:
		return noPrivilege
	}
	switch o.Verb {
	case verbAttach:
		if errno == syscall.EINVAL {
			return "the root must be a detached mount that was never attached: make a new one with fsmount(2) or open_tree(2)"
		}
	case verbMkdir:
		return fmt.Sprintf("give the root a directory %s beforehand", path)
	case verbBind, verbTmpfs:
		switch errno {
		case syscall.ENOTDIR, syscall.EISDIR:
			return "mount a directory on a directory, and a file on a file"
		case syscall.EXDEV, syscall.ELOOP:
			return "name a place in the container that no link of /proc leads to"
		case syscall.EROFS:
			return fmt.Sprintf("give the root what is missing of %s beforehand", path)
		}
	case verbUser:
		return "name one that /etc/passwd of the container has, or write numbers: UID:GID"
	case verbMount:
		switch errno {
		case syscall.ELOOP, syscall.ENOTDIR:
			return fmt.Sprintf("make %s a directory of the root, reached through no symbolic link", path)
		case syscall.ENOENT:
			return fmt.Sprintf("give the root a directory %s beforehand", path)
		case syscall.ENODEV:
			return fmt.Sprintf("load the module of file system %q, or use a kernel that has it", o.FS)
		}
	case verbPivot:
		if errno == syscall.EINVAL {
			return "start from a process that is neither in a chroot nor on the initial ram file system"
		}
	case verbVerify:
		return "pass a root that is one mount, without others below it, and say so of mounts that have"
	case verbChdir:
		return "choose a working directory that the root has"
	case verbExec:
		switch errno {
		case syscall.EINVAL:
			return "choose a user that the user namespace has: it is root alone without ids lent by /etc/subuid"
		case syscall.ENOENT, syscall.ENOTDIR:
			return "the root must hold the program, and the interpreter or loader that it asks for"
		case syscall.ENOEXEC:
			return "give a binary for this machine, or a script that starts with #!"
		case syscall.EACCES:
			return "give a file with execute permission"
		}
	}
	return ""
}

const noPrivilege = "run as root, with CAP_SYS_ADMIN"

// cloneError is the error of a start that failed before init could report anything.
func cloneError(err error) *Error {
	e := &Error{Step: "clone namespaces", Err: err}
	switch {
	case errors.Is(err, syscall.EPERM):
		e.Fix = noPrivilege
	case errors.Is(err, syscall.ENOSPC):
		e.Fix = "raise the limits in /proc/sys/user (max_mnt_namespaces, max_pid_namespaces)"
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		e.Fix = "Linux 5.12 or later with mount, pid, uts and ipc namespaces is needed"
	case errors.Is(err, syscall.ENOENT):
		e.Fix = "mount /proc: it is needed to run this binary again"
	}
	return e
}
