package testfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside names the environment variable that tells a test binary that it runs in its own mount namespace already,
// with a temporary directory that its parent removes, however it ends.
const inside = "UNIONFS_TEST_INSIDE"

// Main is the body of a TestMain: it runs the tests of the package (m is a *testing.M) and exits.
//
// As root, they run in a second process, in a mount namespace of its own: what they mount is not seen on the
// host, and is gone after them however they end. The temporary directory of all tests is a fresh one. If the tests
// leave a mount, a process, a descriptor or a file behind, Main says which and fails.
//
// A test binary that was started by a [Func] runs that function instead.
func Main(m interface{ Run() int }) {
	if name := os.Getenv(childName); name != "" {
		os.Exit(runChild(name))
	}
	if os.Geteuid() == 0 && os.Getenv(inside) == "" {
		if code, err := runInside(); err == nil {
			os.Exit(code)
		} else if !errors.Is(err, unix.EPERM) {
			fmt.Fprintln(os.Stderr, "testfs: mount namespace for the tests:", err)
			os.Exit(1)
		}
		// A root that may not unshare, as in a container: tests that mount find out themselves.
	}
	code, err := runGuarded(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testfs:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// runInside runs this test binary again in a new mount namespace, with all mounts private, and returns its exit
// code.
func runInside() (int, error) {
	tmp, err := makeTemp()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp) // nothing is mounted there in this namespace
	runtime.LockOSThread()  // Pdeathsig is about the thread that forked
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1", "TMPDIR="+tmp)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	// go test ends a test binary that takes too long by SIGQUIT, to see its stacks. What is ignored here, as it is under
	// nohup(1), is not handed on; but for who is told of a signal, it is not ignored in what it starts, so that tests that
	// send signals find them as usual.
	ends := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	ignored := map[os.Signal]bool{}
	for _, s := range ends {
		ignored[s] = signal.Ignored(s)
	}
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, ends...)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range sig {
			if !ignored[s] {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return max(cmd.ProcessState.ExitCode(), -cmd.ProcessState.ExitCode()), nil
}

// runGuarded runs the tests and returns their exit code, and an error that lists what they left behind.
func runGuarded(m interface{ Run() int }) (int, error) {
	tmp := os.TempDir()
	if os.Getenv(inside) == "" {
		var err error
		if tmp, err = makeTemp(); err != nil {
			return 1, err
		}
		defer os.RemoveAll(tmp)
		if err := os.Setenv("TMPDIR", tmp); err != nil {
			return 1, err
		}
	}
	// Processes whose parent has died become our children, and so are seen below.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	mounts, fds := mountPoints(), openFiles()

	code := m.Run()

	var left []string
	for _, pid := range leftChildren() {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		left = append(left, fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(comm))))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for fd, what := range openFiles() {
		if fds[fd] != what {
			left = append(left, fmt.Sprintf("descriptor %d (%s)", fd, what))
		}
	}
	for _, path := range added(mountPoints(), mounts) {
		left = append(left, "mount on "+path)
		_ = unix.Unmount(path, unix.MNT_DETACH)
	}
	files, _ := filepath.Glob(tmp + "/*")
	for _, path := range files {
		left = append(left, "file "+path)
	}
	if len(left) > 0 {
		return code, fmt.Errorf("the tests left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
	return code, nil
}

// makeTemp makes the directory for all that the tests make. Checks act as other users too, so all may get there.
func makeTemp() (string, error) {
	tmp, err := os.MkdirTemp("", "unionfsd-test-")
	if err != nil {
		return "", err
	}
	return tmp, os.Chmod(tmp, 0o711)
}

// leftChildren returns the children that are still there after a while: a process that was told to end needs a
// moment.
func leftChildren() []int {
	var left []int
	for range 40 {
		if left = children(); len(left) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

func children() []int {
	var list []int
	self := strconv.Itoa(os.Getpid())
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		// pid (comm) state ppid: comm may hold spaces and parentheses.
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(rest) < 2 || rest[0] == "Z" { // an orphan that has ended, and that nobody will wait for
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && rest[1] == self {
			list = append(list, pid)
		}
	}
	return list
}

// openFiles tells what the descriptors of this process are, without those that the runtime opens when it likes.
func openFiles() map[int]string {
	files := map[int]string{}
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		what, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(what, "anon_inode:[event") {
			continue
		}
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			files[fd] = what
		}
	}
	return files
}

// added returns the elements of now beyond those of before, the last first.
func added(now, before []string) []string {
	count := map[string]int{}
	for _, s := range before {
		count[s]++
	}
	var list []string
	for i := len(now) - 1; i >= 0; i-- {
		if count[now[i]]--; count[now[i]] < 0 {
			list = append(list, now[i])
		}
	}
	return list
}
