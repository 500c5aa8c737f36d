package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes. The run command has more: see run.go.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError ends the process with a code of its own. Without an err it says nothing: all was said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in how the command was called.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// report tells err in one line on stderr and returns the exit code that it means.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	exit, ok := errors.AsType[*exitError](err)
	if ok {
		code = exit.code
	}
	if !ok || exit.err != nil {
		a.complain(err)
	}
	return code
}

// complain writes one line for err, whatever is in it.
func (a *app) complain(err error) {
	fmt.Fprintf(a.stderr, "unionfsd: %s\n", oneLine(err.Error()))
}

// note writes one line that is not about a failure.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "unionfsd: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// oneLine makes paths and messages with control characters in them fit on one line that no terminal acts on.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") { // errors.Join joins with newlines
		if r < ' ' || r == 0x7f {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// shell writes a word of a command that the user is told to run.
func shell(word string) string {
	plain := func(r rune) bool {
		return r > 0x7f || strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%=,", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
