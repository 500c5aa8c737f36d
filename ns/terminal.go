package ns

import (
	"os"

	"golang.org/x/sys/unix"
)

// InForeground reports whether the process group of this process is the one that its terminal is for.
func InForeground() bool {
	tty, err := openTerminal()
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// takeForeground takes the terminal back if it was left to a process group that is no more. A shell in the
// container makes a process group of its own, gives it the terminal, and cannot return it: in its pid namespace our
// group has no number.
//
// Preconditions: the goroutine is locked to its thread.
func takeForeground() {
	tty, err := openTerminal()
	if err != nil {
		return // hung up meanwhile
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	if err != nil || unix.Kill(-pgrp, 0) != unix.ESRCH {
		return // ours already, or the user's shell has put us into the background
	}
	// Taking it from the background would stop us by SIGTTOU, were that not blocked.
	var ttou, old unix.Sigset_t
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &old) != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// openTerminal opens the terminal that controls this process; an error if there is none.
func openTerminal() (*os.File, error) {
	return os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
}
