package ns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is the argv[0] by which a process knows that it is to be init.
const initName = "unionfsd-init"

// Descriptors that init is started with, after the program's own three.
const (
	socketFD = 3 + iota
	rootFD
)

// Init must be the first thing that main calls. In a process that [Start] made to be the init of a container it
// does that duty and exits; in every other it returns at once.
func Init() {
	if len(os.Args) > 0 && os.Args[0] == initName {
		os.Exit(runInit())
	}
}

// runInit is the life of pid 1. It returns the exit code of the program.
func runInit() int {
	socket := os.NewFile(socketFD, "supervisor")
	tell := json.NewEncoder(socket)
	die := func(o op, err error) int {
		// If the supervisor is gone there is nobody to tell.
		_ = tell.Encode(fail(o, err))
		return ExitFailed
	}

	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "%s: only unionfsd itself starts this\n", initName)
		return ExitFailed
	}
	_ = os.WriteFile("/proc/self/comm", []byte(initName), 0) // else ps shows "exe"; no more than that
	if err := shedDescriptors(); err != nil {
		return die(op{Verb: verbInit}, err)
	}
	var plan order
	if err := json.NewDecoder(socket).Decode(&plan); err != nil {
		return die(op{Verb: verbInit}, err)
	}
	go func() {
		// Nothing more comes; the end of the file is the end of the supervisor.
		_, _ = io.Copy(io.Discard, socket)
		os.Exit(ExitFailed)
	}()
	// From here on, so that a signal that comes before there is a program waits for it.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, catchable()...)

	syscall.Umask(0) // modes in the plan are meant as they are
	last := len(plan.Ops) - 1
	for _, o := range plan.Ops[:last] {
		if err := execute(o, rootFD); err != nil {
			return die(o, err)
		}
	}
	unix.Close(rootFD)
	syscall.Umask(0o022)
	program, err := start(plan.Ops[last])
	if err != nil {
		return die(plan.Ops[last], err)
	}
	// What the terminal sends to the process group reaches the program directly, and is not to be forwarded.
	if err := syscall.Setpgid(0, 0); err != nil {
		return die(op{Verb: verbInit}, fmt.Errorf("setpgid: %w", err))
	}
	if err := tell.Encode(report{Started: true}); err != nil {
		return ExitFailed
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(program, s.(syscall.Signal)) // it may just have ended
		}
	}()
	code, err := reap(program)
	if err != nil {
		return die(op{Verb: verbInit}, err)
	}
	_ = tell.Encode(report{Exited: &code})
	return code
}

// shedDescriptors keeps the program from inheriting the descriptors that are meant for init only. There are no others
// of the host's, see clone.
func shedDescriptors() error {
	if err := unix.CloseRange(socketFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// start runs the program of step o with descriptors 0 to 2 and nothing else, and returns its pid.
func start(o op) (int, error) {
	argv, env := fromRaw(o.Argv), fromRaw(o.Env)
	file, err := lookPath(argv[0], searchPath(env))
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(file, argv, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
	if _, serr := os.Stat(file); err == syscall.ENOENT && serr == nil {
		err = fmt.Errorf("its interpreter or loader: %w", err)
	}
	return pid, pathError("exec", file, err)
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

// reap waits for every child, those that the dying leave to pid 1 included, until program ends, and returns its
// exit code, 128+N if signal N ended it.
func reap(program int) (int, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait4: %w", err)
		case pid == program:
			return exitCode(status), nil
		}
	}
}

// exitCode returns the exit status of a process as a shell would.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
