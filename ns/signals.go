package ns

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// catchable returns the signals that init takes to forward them: all but those that nobody can catch, that report
// on this process itself, or that are ignored by inheritance, as SIGHUP under nohup(1).
func catchable() []os.Signal {
	own := []syscall.Signal{
		syscall.SIGKILL, syscall.SIGSTOP, // not to be caught
		syscall.SIGCHLD, syscall.SIGURG, // children; Go's preemption
		syscall.SIGPIPE, syscall.SIGPROF, // own writes; own profile
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS, // own faults
		syscall.SIGABRT, // a way to see the stacks
		32, 33, 34,      // the C library's and Go's
	}
	var list []os.Signal
	for s := syscall.Signal(1); s <= 64; s++ {
		if !slices.Contains(own, s) && !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}

// Forward passes the signals that this process gets on to the program, until stop is called. It leaves out what
// concerns the whole process group and has reached the program by itself: job control, the size of the window, and
// SIGINT and SIGQUIT from the keyboard of a terminal that this process is in the foreground of.
func (c *Container) Forward() (stop func()) {
	jobControl := []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT, syscall.SIGWINCH}
	taken := slices.DeleteFunc(catchable(), func(s os.Signal) bool { return slices.Contains(jobControl, s) })
	signals, done := make(chan os.Signal, 64), make(chan struct{})
	signal.Notify(signals, taken...)
	go func() {
		defer close(done)
		for s := range signals {
			if (s == syscall.SIGINT || s == syscall.SIGQUIT) && InForeground() {
				continue
			}
			_ = c.Signal(s) // it may just have ended
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
