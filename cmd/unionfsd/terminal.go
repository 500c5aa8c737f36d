package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// needTerminal is an error if this process has no terminal to give to a program.
func needTerminal() error {
	if !term.IsTerminal(0) {
		return errors.New("-t, but standard input is no terminal; leave out -t")
	}
	return nil
}

// relay passes everything on between the terminal of this process and the one of a program, whose other end is master,
// the size of the window included. What it returns gives the terminal of this process back as it was, when all that the
// program wrote is on it.
func relay(master *os.File) (end func()) {
	state, err := term.MakeRaw(0)
	if err != nil {
		state = nil // not a terminal any more
	}
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, syscall.SIGWINCH)
	resize := func() {
		if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size)
		}
	}
	resize()
	go func() {
		for range sizes {
			resize()
		}
	}()
	go io.Copy(master, os.Stdin)
	drained := make(chan struct{})
	go func() {
		io.Copy(os.Stdout, master) // ends with EIO when nobody has the program's end open any more
		close(drained)
	}()
	return func() {
		select {
		case <-drained:
		case <-time.After(200 * time.Millisecond): // somebody in the background has it still
		}
		signal.Stop(sizes)
		close(sizes)
		if state != nil {
			_ = term.Restore(0, state)
		}
		// The copying from standard input goes on until there is some, or this process ends, which it does now.
	}
}
