// Probe is the program that the tests launch in containers: it says what it sees there. It is linked statically, so
// it is all that a root needs.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

func run(command string, args []string) error {
	switch command {
	case "exit": // CODE
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "kill": // PID SIGNAL: pid 0 is this process
		pid, _ := strconv.Atoi(args[0])
		sig, _ := strconv.Atoi(args[1])
		if pid == 0 {
			pid = os.Getpid()
		}
		if err := syscall.Kill(pid, syscall.Signal(sig)); err != nil {
			return err
		}
		time.Sleep(time.Minute)
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "args":
		fmt.Printf("%q\n", args)
	case "env":
		fmt.Printf("%q\n", os.Environ())
	case "cat": // FILE
		b, err := os.ReadFile(args[0])
		fmt.Print(string(b))
		return err
	case "pwd":
		dir, err := os.Readlink("/proc/self/cwd")
		fmt.Println(dir)
		return err
	case "hostname":
		name, err := os.Hostname()
		fmt.Println(name)
		return err
	case "fds": // its descriptors, one a line
		return fds()
	case "stdin": // its name, and the mount that it is on
		return stdin()
	case "stat": // FILE...: type, mode and device or target of each
		return stat(args)
	case "write": // FILE...: try to write each
		for _, name := range args {
			err := os.WriteFile(name, []byte("x"), 0o600)
			fmt.Println(name, err == nil, err)
		}
	case "mount": // DIR: a tmpfs there, shared with all peers; sleep
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", args[0], "tmpfs", 0, ""); err != nil {
			return err
		}
		return run("sleep", nil)
	case "typed": // type into the terminal on standard input (TIOCSTI)
		_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, 0, syscall.TIOCSTI, uintptr(unsafe.Pointer(&[]byte("x")[0])))
		fmt.Println("TIOCSTI", errnoName(errno))
	case "attack": // try what the filter of system calls denies, and a few that it does not
		return attack()
	case "overwrite": // FILE: open it for writing, in the ways that there are
		return overwrite(args[0])
	case "pty":
		return pty()
	case "signals": // print every signal; end on SIGTERM
		return signals()
	case "orphans": // COUNT: leave as many to pid 1; wait until all are gone
		n, _ := strconv.Atoi(args[0])
		return orphans(n)
	case "spawn": // COUNT: start as many sleeping children; sleep
		n, _ := strconv.Atoi(args[0])
		for range n {
			if err := exec.Command("/proc/self/exe", "sleep").Start(); err != nil {
				return err
			}
		}
		return run("sleep", nil)
	case "daemon": // start a child and end without waiting for it
		return exec.Command("/proc/self/exe", "exit", "0").Start()
	case "foreground": // do what a shell does to its terminal, and end
		return foreground()
	default:
		return fmt.Errorf("unknown command %q", command)
	}
	return nil
}

func fds() error {
	const dir = "/proc/self/fd"
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, 8192)
	n, err := syscall.ReadDirent(fd, buf)
	if err != nil {
		return err
	}
	_, _, names := syscall.ParseDirent(buf[:n], -1, nil)
	for _, name := range names {
		if name == strconv.Itoa(fd) {
			continue
		}
		target, err := os.Readlink(dir + "/" + name)
		if err != nil {
			return err
		}
		fmt.Println(name, target)
	}
	return nil
}

func stdin() error {
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return err
	}
	info, err := os.ReadFile("/proc/self/fdinfo/0")
	if err != nil {
		return err
	}
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	on := "a mount of the host"
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[0] == strings.Fields(id)[0] {
			on = f[4]
		}
	}
	fmt.Println(name, "on", on)
	return nil
}

func stat(names []string) error {
	for _, name := range names {
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFCHR:
			fmt.Printf("%s char %04o %d:%d\n", name, st.Mode&0o7777, st.Rdev>>8, st.Rdev&0xff)
		case syscall.S_IFLNK:
			target, _ := os.Readlink(name)
			fmt.Printf("%s link %s\n", name, target)
		case syscall.S_IFDIR:
			fmt.Printf("%s dir %04o\n", name, st.Mode&0o7777)
		default:
			fmt.Printf("%s other\n", name)
		}
	}
	return nil
}

// pty makes a terminal from /dev/ptmx and prints its mode, as the container's devpts made it.
func pty() error {
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	var n uint32
	if err := ioctl(master, syscall.TIOCGPTN, unsafe.Pointer(&n)); err != nil {
		return err
	}
	return stat([]string{fmt.Sprintf("/dev/pts/%d", n)})
}

func signals() error {
	ch := make(chan os.Signal, 64)
	signal.Notify(ch)
	fmt.Println("ready")
	for s := range ch {
		switch s {
		case syscall.SIGURG, syscall.SIGCHLD:
		case syscall.SIGTERM:
			fmt.Println("end")
			return nil
		default:
			fmt.Println(int(s.(syscall.Signal)))
		}
	}
	return nil
}

func orphans(n int) error {
	for range n {
		if err := exec.Command("/proc/self/exe", "daemon").Run(); err != nil {
			return err
		}
	}
	// Left are pid 1 and this process.
	var left []string
	for range 100 {
		left = nil
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range stats {
			if b, err := os.ReadFile(path); err == nil {
				left = append(left, strings.Join(strings.Fields(string(b))[:4], " "))
			}
		}
		if len(left) == 2 {
			fmt.Println("reaped")
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("left: %q", left)
}

func foreground() error {
	if err := syscall.Setpgid(0, 0); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGTTOU)
	pgrp := int32(syscall.Getpid())
	return ioctl(0, syscall.TIOCSPGRP, unsafe.Pointer(&pgrp))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// attack prints the error of each call.
func attack() error {
	zero := uintptr(0)
	name := uintptr(unsafe.Pointer(&[]byte("/\x00")[0]))
	for _, c := range []struct {
		what    string
		number  uintptr
		a, b, c uintptr
	}{
		{"mount", syscall.SYS_MOUNT, name, name, name},
		{"umount", syscall.SYS_UMOUNT2, name, zero, zero},
		{"unshare user", syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER, zero, zero},
		{"clone user", syscall.SYS_CLONE, syscall.CLONE_NEWUSER | 17, zero, zero},
		{"clone3", 435, zero, zero, zero},
		{"setns", 308, zero, zero, zero},
		{"open_tree", 428, zero, name, zero},
		{"fsopen", 430, name, zero, zero},
		{"bpf", 321, zero, zero, zero},
		{"keyctl", syscall.SYS_KEYCTL, zero, zero, zero},
		{"io_uring_setup", 425, zero, zero, zero},
		{"userfaultfd", 323, zero, zero, zero},
		{"perf_event_open", syscall.SYS_PERF_EVENT_OPEN, zero, zero, zero},
		{"open_by_handle_at", 304, zero, zero, zero},
		{"reboot", syscall.SYS_REBOOT, zero, zero, zero},
		{"sethostname", syscall.SYS_SETHOSTNAME, name, 1, zero},
		{"init_module", syscall.SYS_INIT_MODULE, zero, zero, zero},
		{"TIOCSTI", syscall.SYS_IOCTL, zero, syscall.TIOCSTI, name},
		{"TIOCSTI, high bits", syscall.SYS_IOCTL, zero, 1<<32 | syscall.TIOCSTI, name},
		{"TIOCLINUX", syscall.SYS_IOCTL, zero, 0x541c, name},
		{"socket vsock", syscall.SYS_SOCKET, 40, syscall.SOCK_STREAM, zero},
		{"personality", syscall.SYS_PERSONALITY, 0x0040000, zero, zero},
		{"x32", 0x40000000 | syscall.SYS_GETPID, zero, zero, zero},
		{"getpid", syscall.SYS_GETPID, zero, zero, zero},
		{"personality, ask", syscall.SYS_PERSONALITY, 0xffffffff, zero, zero},
		{"socket inet", syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_STREAM, zero},
	} {
		pid, _, errno := syscall.RawSyscall(c.number, c.a, c.b, c.c)
		if c.number == syscall.SYS_CLONE && errno == 0 && pid == 0 { // the child
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		fmt.Printf("%s: %s\n", c.what, errnoName(errno))
	}
	return nil
}

func errnoName(errno syscall.Errno) string {
	switch errno {
	case 0:
		return "ok"
	case syscall.EPERM:
		return "EPERM"
	case syscall.ENOSYS:
		return "ENOSYS"
	}
	return errno.Error()
}

// overwrite opens file for writing by its name, and again through a descriptor of it, as a process does that waits until
// nobody executes it any more.
func overwrite(file string) error {
	_, err := os.OpenFile(file, os.O_WRONLY, 0)
	fmt.Println("by name:", err != nil)
	f, err := os.Open(file)
	if err != nil {
		fmt.Println("not even to read")
		return nil
	}
	_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	fmt.Println("by descriptor:", err != nil && !strings.Contains(err.Error(), "text file busy"), err)
	return nil
}
