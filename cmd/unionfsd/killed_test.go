package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unionfsd/unionfsd/internal/mountinfo"
)

// kills is how many times TestKilled kills something.
var kills = flag.Int("kills", 24, "how many `TIMES` TestKilled kills something")

// TestKilled kills what a container consists of, at any time after it was asked for: its supervisor, its init, its program,
// the server of the union that it is on top of, or the command that has asked. What cannot go on ends, rm -f removes the rest,
// and nothing is left.
//
// It never is over io_uring: see transport/doc.go for what becomes of some servers that are killed.
func TestKilled(t *testing.T) {
	s := newSession(t)
	if err := os.Mkdir(s.path("merged"), 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := mountinfo.Read()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	victims := []string{"supervisor", "init", "program", "server", "command"}
	for i := range *kills {
		backend, victim := []string{"fuse", "kernel"}[i%2], victims[i/2%len(victims)]
		after := time.Duration(r.IntN(60)) * time.Millisecond
		if !t.Run(fmt.Sprintf("%d: %s of %s after %v", i, victim, backend, after), func(t *testing.T) {
			s.t = t
			s.killed(backend, victim, after, r.IntN(2) == 0)
		}) {
			t.Fatalf("seed %d", seed)
		}
	}
	s.t = t
	if after, err := mountinfo.Read(); err != nil || len(after) != len(before) {
		t.Errorf("%d mounts were %d before (%v)", len(after), len(before), err)
	}
}

// killed runs a container and kills a part of it.
func (s *session) killed(backend, victim string, after time.Duration, remove bool) {
	mark := "MARK=" + strconv.FormatUint(rand.Uint64(), 36)
	rootfs := "root"
	if victim == "server" {
		rootfs = "merged"
		s.must("mount", "--io-uring", "off", "-l", "root", "merged")
	}
	args := []string{"run", "-d", "--name", "web", "-b", backend, "--io-uring", "off", "--rootfs", rootfs, "-e", mark}
	if remove {
		args = append(args, "--rm")
	}
	cmd := s.command(append(args, "sh", "-c", "while :; do echo x >>/f; sleep 0.01; done")...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	defer func() { <-ended }()
	if victim != "command" {
		until(s.t, "there is a container", func() bool {
			c, err := s.root.Container("web")
			return err == nil && (victim == "supervisor" || c.PID != 0)
		})
	}
	time.Sleep(after)
	if pid := s.pidOf(victim, cmd.Process.Pid); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by now
	}
	switch victim {
	case "command": // what it began goes on, or ends by itself since nobody hears of it
		<-ended
	case "server": // the programs get errors where a layer was, and may go on
	default:
		until(s.t, "the container has ended", func() bool {
			c, err := s.root.Container("web")
			return err != nil || !c.Running
		})
	}
	s.must("ps")
	until(s.t, "there is no container", func() bool { // one whose command was killed may only appear now
		s.must("rm", "-f", "web")
		left, err := filepath.Glob(s.root.Dir() + "/containers/*")
		return err == nil && len(left) == 0 && (victim != "command" || !marked(mark))
	})
	if victim == "server" {
		until(s.t, "it can be unmounted", func() bool {
			_, _, code := s.run("umount", "merged")
			return code == 0
		})
	}
	until(s.t, "no process is left", func() bool { return !marked(mark) })
	if hidden, _ := filepath.Glob(s.root.Dir() + "/containers/.*"); len(hidden) > 0 { // of one that was killed while it was made or removed itself; the next one sweeps
		s.must("run", "--rm", "--io-uring", "off", "--rootfs", "root", "sh", "-c", ":")
		if hidden, _ := filepath.Glob(s.root.Dir() + "/containers/.*"); len(hidden) > 0 {
			s.t.Errorf("left are %v", hidden)
		}
	}
}

// pidOf returns the process to kill; 0 if it is not there.
func (s *session) pidOf(victim string, command int) int {
	switch victim {
	case "command":
		return command
	case "server":
		list, err := s.root.Mounts()
		if err != nil || len(list) == 0 {
			s.t.Fatalf("no mount: %v", err)
		}
		for _, m := range list {
			if string(m.Mountpoint) == s.path("merged") {
				return m.PID
			}
		}
		return 0
	}
	c, err := s.root.Container("web")
	if err != nil || !c.Running {
		return 0
	}
	switch victim {
	case "supervisor":
		return c.Supervisor
	case "init":
		return c.PID
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.PID, c.PID))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// marked reports whether any process has that variable in its environment.
func marked(variable string) bool {
	list, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range list {
		if text, _ := os.ReadFile(path); strings.Contains("\x00"+string(text), "\x00"+variable+"\x00") {
			return true
		}
	}
	return false
}

// TestMany has many containers at once on top of the same layers.
func TestMany(t *testing.T) {
	forBackends(t, func(t *testing.T, backend string) {
		s := newSession(t)
		many := map[string]int{"fuse": 50, "kernel": 10}[backend] // there nothing of ours is shared
		name := func(i int) string { return fmt.Sprintf("c%d", i) }
		all := func(what func(i int)) {
			var group sync.WaitGroup
			for i := range many {
				group.Go(func() { what(i) })
			}
			group.Wait()
		}
		all(func(i int) {
			_, stderr, code := s.run("run", "-d", "--name", name(i), "-b", backend, "--rootfs", "root", "sh", "-c",
				fmt.Sprintf("echo %d >/tmp/mine; echo up; sleep 1000", i))
			if code != 0 {
				t.Errorf("container %d: exit code %d: %s", i, code, stderr)
			}
		})
		if t.Failed() {
			t.FailNow()
		}
		list, err := s.root.Containers()
		if err != nil || len(list) != many {
			t.Fatalf("%d containers, %v", len(list), err)
		}
		for _, c := range list {
			if c.Status() != "running" {
				t.Errorf("%s is %s", c.Name, c.Status())
			}
		}
		all(func(i int) {
			until(t, "it is up", func() bool { out, _, _ := s.run("logs", name(i)); return out == "up\n" })
			if out, stderr, _ := s.run("exec", name(i), "busybox", "cat", "/tmp/mine"); out != fmt.Sprintln(i) {
				t.Errorf("container %d has %q, %s", i, out, stderr)
			}
		})
		if list, err := os.ReadDir(s.path("root/tmp")); err != nil || len(list) > 0 {
			t.Errorf("the layer has %v, %v", list, err)
		}
		all(func(i int) {
			if _, stderr, code := s.run("rm", "-f", name(i)); code != 0 {
				t.Errorf("rm of container %d: %s", i, stderr)
			}
		})
		if left, err := s.root.Containers(); err != nil || len(left) > 0 {
			t.Errorf("left are %v, %v", left, err)
		}
	})
}
