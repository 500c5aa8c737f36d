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
